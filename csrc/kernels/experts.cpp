#include "kernels/experts.h"

#include "isa/simd.h"

namespace pelton::PELTON_ISA {

namespace {

void softmax(const float* x, float* y, int64_t count) {
    float largest = x[0];
    for (int64_t i = 1; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
    f32x16 sum = set1(0.0f);
    for (int64_t i = 0; i < count; i += 16) {
        const int left = count - i < 16 ? static_cast<int>(count - i) : 16;
        const f32x16 p = select(first_lanes(left), exp(load_first(x + i, left) - set1(largest)), set1(0.0f));
        sum += p;
        store_first(y + i, left, p);
    }
    const float total = reduce_add(sum);
    // A NaN's sign says nothing, and inf - inf is a NaN that has one; `route` marks by sign.
    for (int64_t i = 0; i < count; ++i) y[i] = __builtin_fabsf(y[i] / total);
}

}  // namespace

void route(const float* scores, float* weights, int64_t count, int64_t top_k, bool normalize) {
    softmax(scores, weights, count);
    float sum = 0.0f;
    for (int64_t k = 0; k < top_k; ++k) {  // those picked are marked by a negative sign
        int64_t best = -1;
        for (int64_t i = 0; i < count; ++i)
            if (!__builtin_signbit(weights[i]) && (best < 0 || weights[i] > weights[best])) best = i;
        if (best < 0) break;
        sum += weights[best];
        weights[best] = -weights[best];
    }
    for (int64_t i = 0; i < count; ++i)
        weights[i] = !__builtin_signbit(weights[i]) ? 0.0f : normalize ? -weights[i] / sum : -weights[i];
}

}  // namespace pelton::PELTON_ISA
