#include "kernels/elementwise.h"

#include "kernels/elementwise_math.h"

namespace pelton::PELTON_ISA {

namespace {

template <class Function>
PELTON_INLINE void map(const float* x, float* y, int64_t count, Function f) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) store(y + i, f(load(x + i)));
    if (i < count)
        store_first(y + i, static_cast<int>(count - i), f(load_first(x + i, static_cast<int>(count - i))));
}

template <class Function>
PELTON_INLINE void map(const float* a, const float* b, float* y, int64_t count, Function f) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) store(y + i, f(load(a + i), load(b + i)));
    if (i == count) return;
    const int left = static_cast<int>(count - i);
    store_first(y + i, left, f(load_first(a + i, left), load_first(b + i, left)));
}

// Calls f with the activation as a function object of known type.
template <class Function>
PELTON_INLINE void with_activation(Activation kind, Function f) {
    switch (kind) {
        case Activation::kSilu:
            return f([](f32x16 x) { return activate<Activation::kSilu>(x); });
        case Activation::kGeluTanh:
            return f([](f32x16 x) { return activate<Activation::kGeluTanh>(x); });
        case Activation::kGeluErf:
            return f([](f32x16 x) { return activate<Activation::kGeluErf>(x); });
        case Activation::kRelu:
            return f([](f32x16 x) { return activate<Activation::kRelu>(x); });
    }
}

}  // namespace

void add_arrays(const float* a, const float* b, float* y, int64_t count) {
    map(a, b, y, count, [](f32x16 p, f32x16 q) { return p + q; });
}

void mul_arrays(const float* a, const float* b, float* y, int64_t count) {
    map(a, b, y, count, [](f32x16 p, f32x16 q) { return p * q; });
}

void scale_array(const float* x, float factor, float* y, int64_t count) {
    map(x, y, count, [factor](f32x16 p) { return p * set1(factor); });
}

void soft_cap_array(const float* x, float cap, float* y, int64_t count) {
    map(x, y, count, [cap](f32x16 p) { return set1(cap) * tanh(p / set1(cap)); });
}

void activate_array(Activation kind, const float* x, float* y, int64_t count) {
    with_activation(kind, [&](auto f) { map(x, y, count, f); });
}

void gate_arrays(Activation kind, const float* x, const float* up, float* y, int64_t count) {
    with_activation(kind,
                    [&](auto f) { map(x, up, y, count, [f](f32x16 p, f32x16 q) { return f(p) * q; }); });
}

void accumulate_array(const float* x, float factor, float* y, int64_t count) {
    map(x, y, y, count, [factor](f32x16 p, f32x16 old) { return fma(p, set1(factor), old); });
}

}  // namespace pelton::PELTON_ISA
