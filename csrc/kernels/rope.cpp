#include "kernels/rope.h"

#include "isa/simd.h"

namespace pelton::PELTON_ISA {

namespace {

// Whole vectors are stored without a mask: what such a store wrote is at hand for the next load.
void rotate_halves(const RopeCall& call, const float* x, float* y) {
    const float *cosine = call.table, *sine = call.table + call.half;
    int64_t i = 0;
    for (; i + 16 <= call.half; i += 16) {
        const f32x16 c = load(cosine + i), s = load(sine + i), a = load(x + i), b = load(x + call.half + i);
        store(y + i, a * c - b * s);
        store(y + call.half + i, b * c + a * s);
    }
    if (i == call.half) return;
    const int left = static_cast<int>(call.half - i);
    const f32x16 c = load_first(cosine + i, left), s = load_first(sine + i, left);
    const f32x16 a = load_first(x + i, left), b = load_first(x + call.half + i, left);
    store_first(y + i, left, a * c - b * s);
    store_first(y + call.half + i, left, b * c + a * s);
}

void rotate_pairs(const RopeCall& call, const float* x, float* y) {
    const float *cosine = call.table, *sine = call.table + call.half;
    int64_t i = 0;
    for (; i + 16 <= call.half; i += 16) {
        const f32x16 c = load(cosine + i), s = load(sine + i);
        f32x16 a, b;
        load_pairs(x + 2 * i, a, b);
        store_pairs(y + 2 * i, a * c - b * s, b * c + a * s);
    }
    for (; i < call.half; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = a * cosine[i] - b * sine[i];
        y[2 * i + 1] = b * cosine[i] + a * sine[i];
    }
}

}  // namespace

void rotate(const RopeCall& call) {
    for (int64_t head = 0; head < call.heads; ++head) {
        const float* x = call.x + head * call.head_dim;
        float* y = call.y + head * call.head_dim;
        call.interleaved ? rotate_pairs(call, x, y) : rotate_halves(call, x, y);
        for (int64_t i = 2 * call.half; i < call.head_dim; ++i) y[i] = x[i];
    }
}

}  // namespace pelton::PELTON_ISA
