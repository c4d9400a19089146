// tanh, erf and the activations on 16 lanes. Absolute errors are stated; tests/ops holds them to that.
#pragma once

#include "isa/simd.h"
#include "kernels/elementwise.h"

namespace pelton::PELTON_ISA {

PELTON_INLINE f32x16 magnitude(f32x16 x) { return as_f32(as_i32(x) & set1_i32(0x7fffffff)); }

// Within 3 units in the last place; odd polynomial near zero (Cephes tanhf), 1 - 2 / (e^2x + 1) elsewhere.
PELTON_INLINE f32x16 tanh(f32x16 x) {
    const f32x16 z = x * x;
    f32x16 p = set1(-5.70498872745e-3f);
    p = fma(p, z, set1(2.06390887954e-2f));
    p = fma(p, z, set1(-5.37397155531e-2f));
    p = fma(p, z, set1(1.33314422036e-1f));
    p = fma(p, z, set1(-3.33332819422e-1f));
    const f32x16 small = fma(p * z, x, x);
    const f32x16 large = set1(1.0f) - set1(2.0f) / (exp(x + x) + set1(1.0f));
    return select(less(magnitude(x), set1(0.625f)), small, large);
}

// Within 3e-7 of the true value (Abramowitz and Stegun 7.1.26 has 1.5e-7 before rounding).
PELTON_INLINE f32x16 erf(f32x16 x) {
    const f32x16 a = magnitude(x), one = set1(1.0f);
    const f32x16 t = one / fma(set1(0.3275911f), a, one);
    f32x16 p = set1(1.061405429f);
    p = fma(p, t, set1(-1.453152027f));
    p = fma(p, t, set1(1.421413741f));
    p = fma(p, t, set1(-0.284496736f));
    p = fma(p, t, set1(0.254829592f));
    const f32x16 positive = one - p * t * exp(-(a * a));
    return select(less(x, set1(0.0f)), -positive, positive);
}

template <Activation kKind>
PELTON_INLINE f32x16 activate(f32x16 x) {
    if constexpr (kKind == Activation::kSilu) return x / (set1(1.0f) + exp(-x));
    if constexpr (kKind == Activation::kGeluTanh) {
        const f32x16 inner = set1(0.7978845608f) * fma(set1(0.044715f) * x * x, x, x);
        return set1(0.5f) * x * (set1(1.0f) + tanh(inner));
    }
    if constexpr (kKind == Activation::kGeluErf)
        return set1(0.5f) * x * (set1(1.0f) + erf(x * set1(0.70710678f)));
    return max(set1(0.0f), x);  // a NaN survives
}

}  // namespace pelton::PELTON_ISA
