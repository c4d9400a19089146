// Sixteen float lanes for every instruction-set level; one kernel source, compiled once per level.
//
// A kernel file includes this header, opens `namespace pelton::PELTON_ISA`, and is compiled with that level's
// flags. Nothing inline may be shared between levels (see check_symbols.cmake), so kernels avoid <algorithm>,
// <vector> and friends and use only what is here and plain C headers.
//
// Numbers agree bit for bit within a level, not between levels: `fma` is fused only where the hardware is.
#pragma once

#include <stdint.h>
#include <string.h>

#define PELTON_INLINE inline __attribute__((always_inline))
// Unrolled tiles compile for many minutes with checks in every lane, and for half of all the build's time
// where lanes are loops.
#if defined(PELTON_SANITIZED) || defined(PELTON_ISA_generic)
#    define PELTON_UNROLL
#elif defined(__clang__)
#    define PELTON_UNROLL _Pragma("unroll")
#else
#    define PELTON_UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(PELTON_ISA_avx512) || defined(PELTON_ISA_avx512_bf16)
#    include "isa/simd_avx512.h"
#elif defined(PELTON_ISA_avx2) || defined(PELTON_ISA_avx_vnni)
#    include "isa/simd_avx2.h"
#else
#    include "isa/simd_generic.h"
#endif

namespace pelton::PELTON_ISA {

// 0 - a: the negative of 0 is +0.
PELTON_INLINE f32x16 operator-(f32x16 a) { return set1(0.0f) - a; }
PELTON_INLINE f32x16& operator+=(f32x16& a, f32x16 b) { return a = a + b; }

// Lanes of `a` where the mask is set, of `b` elsewhere: select(less(x, y), a, b).
// max/min return their second operand when either is NaN, on every level: put a NaN that must survive second.

// 2^n for integer-valued n in -126..127.
PELTON_INLINE f32x16 power_of_two(i32x16 n) { return as_f32(shift_left<23>(n + set1_i32(127))); }

// a * 2^n for integer-valued n in -252..254, where the result is normal or infinite. The one instruction
// takes 0.7 of the time of exp with two factors, and gives the same bits.
PELTON_INLINE f32x16 times_power_of_two(f32x16 a, f32x16 n) {
#if defined(PELTON_ISA_avx512) || defined(PELTON_ISA_avx512_bf16)
    return {_mm512_scalef_ps(a.v, n.v)};
#else
    // Two factors, because 2^128 alone would overflow before the largest results do.
    const i32x16 whole = to_i32(n), half = shift_right<1>(whole);
    return a * power_of_two(half) * power_of_two(whole - half);
#endif
}

// The same where the mask is set, 0 elsewhere.
PELTON_INLINE f32x16 times_power_of_two_where(mask16 m, f32x16 a, f32x16 n) {
#if defined(PELTON_ISA_avx512) || defined(PELTON_ISA_avx512_bf16)
    return {_mm512_maskz_scalef_ps(m.v, a.v, n.v)};
#else
    return select(m, times_power_of_two(a, n), set1(0.0f));
#endif
}

// acc + high * high + low * low of each lane's two bfloat16, in this order, each sum rounded to float32 (the
// products are exact). The instruction reads and writes denormals as 0.
PELTON_INLINE f32x16 add_bf16_products(f32x16 acc, i32x16 a, i32x16 b) {
#if defined(PELTON_ISA_avx512_bf16)
    __m512bh x, y;
    memcpy(&x, &a.v, sizeof x);
    memcpy(&y, &b.v, sizeof y);
    return {_mm512_dpbf16_ps(acc.v, x, y)};
#else
    return fma(bf16_low(a), bf16_low(b), fma(bf16_high(a), bf16_high(b), acc));
#endif
}

// e^x, at most 1.1 units in the last place from the true value (measured 1.01, tests/native/test_cpu.py);
// results below the smallest normal float are 0, so exp(-inf) = 0; exp(inf) = inf; NaN stays NaN.
PELTON_INLINE f32x16 exp(f32x16 x) {
    constexpr float kLowest = -87.33654f, kHighest = 88.73f;
    const f32x16 clamped = min(set1(kHighest), max(set1(kLowest), x));
    const f32x16 n = round_even(clamped * set1(1.44269504f));
    // ln 2 in two parts; the first has 10 bits, so n * it is exact even without fma.
    f32x16 r = fma(n, set1(-0.693359375f), clamped);
    r = fma(n, set1(2.12194440e-4f), r);
    // Minimax fit of (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2.
    f32x16 p = set1(0.001381454f);
    p = fma(p, r, set1(0.008368745f));
    p = fma(p, r, set1(0.04166839f));
    p = fma(p, r, set1(0.16666521f));
    p = fma(p, r, set1(0.49999994f));
    p = fma(p, r * r, r) + set1(1.0f);
    const f32x16 result = times_power_of_two(p, n);
    return select(less(x, set1(kLowest)), set1(0.0f), result);
}

// 2^x for -100 <= x <= 0 with a relative error of at most 3e-6 (measured 2.9e-6, tests/native/test_cpu.py),
// for what is rounded to bfloat16 or 16 bits beside a largest of 1: two thirds of the instructions of exp.
// Below -100 it is 0, never a denormal, each of which takes Intel's processors 280 cycles and more: positions
// that a query does not see made its exponentials three times as long. NaN stays NaN.
PELTON_INLINE f32x16 coarse_exp2(f32x16 x) {
    const f32x16 least = set1(-100.0f), clamped = max(least, x);
    const f32x16 n = round_even(clamped), r = clamped - n;
    // Minimax fit of (2^r - 1) / r on |r| <= 1 / 2.
    f32x16 p = set1(0.0095828531f);
    p = fma(p, r, set1(0.0559064267f));
    p = fma(p, r, set1(0.240240986f));
    p = fma(p, r, set1(0.693124194f));
    return times_power_of_two_where(not_less(x, least), fma(p, r, set1(1.0f)), n);
}

// Thirty-two bfloat16; the instruction stores denormals as 0.
PELTON_INLINE void store_bf16(uint16_t* p, f32x16 low, f32x16 high) {
#if defined(PELTON_ISA_avx512_bf16)
    const __m512bh both = _mm512_cvtne2ps_pbh(high.v, low.v);
    memcpy(p, &both, sizeof both);
#else
    store_bf16(p, low);
    store_bf16(p + 16, high);
#endif
}

// Sixteen bytes to every fourth place.
PELTON_INLINE void store_apart(uint8_t* p, const uint8_t* x) {
#if defined(__AVX512BW__)
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    _mm512_mask_storeu_epi8(p, 0x1111111111111111u, wide);  // touches nothing between them
#else
    for (int i = 0; i < 16; ++i) p[4 * i] = x[i];
#endif
}

// Sixteen numbers to every other place.
PELTON_INLINE void store_apart(uint16_t* p, const uint16_t* x) {
#if defined(__AVX512BW__)
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    _mm512_mask_storeu_epi16(p, 0x55555555u, wide);  // touches nothing between them
#else
    for (int i = 0; i < 16; ++i) p[2 * i] = x[i];
#endif
}

}  // namespace pelton::PELTON_ISA
