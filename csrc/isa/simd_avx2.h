// Sixteen lanes as two halves on AVX2 with FMA and F16C, and where the level has it AVX-VNNI for the integer
// dot products. Included by simd.h only.
#pragma once

#include <immintrin.h>

namespace pelton::PELTON_ISA {

struct f32x16 {
    __m256 a, b;  // lanes 0..7, lanes 8..15
};
struct i32x16 {
    __m256i a, b;
};
struct u8x64 {
    __m256i a, b;
};
struct mask16 {
    __m256 a, b;  // all bits of a set lane
};

PELTON_INLINE __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
PELTON_INLINE void store256(void* p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
PELTON_INLINE __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
PELTON_INLINE void store128(void* p, __m128i x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }

// float32
PELTON_INLINE f32x16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
PELTON_INLINE f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
PELTON_INLINE void store(float* p, f32x16 x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
PELTON_INLINE void stream(float* p, f32x16 x) {
    _mm256_stream_ps(p, x.a);
    _mm256_stream_ps(p + 8, x.b);
}
PELTON_INLINE void stream_fence() { _mm_sfence(); }
PELTON_INLINE mask16 first_lanes(int count) {
    const __m256i limit = _mm256_set1_epi32(count);
    const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, low)),
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, high))};
}
PELTON_INLINE f32x16 load_first(const float* p, int count) {
    const mask16 m = first_lanes(count);
    return {_mm256_maskload_ps(p, _mm256_castps_si256(m.a)),
            _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.b))};
}
PELTON_INLINE void store_first(float* p, int count, f32x16 x) {
    const mask16 m = first_lanes(count);
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.a), x.a);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.b), x.b);
}
PELTON_INLINE f32x16 operator+(f32x16 x, f32x16 y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
PELTON_INLINE f32x16 operator-(f32x16 x, f32x16 y) {
    return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
PELTON_INLINE f32x16 operator*(f32x16 x, f32x16 y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
PELTON_INLINE f32x16 operator/(f32x16 x, f32x16 y) {
    return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
PELTON_INLINE f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
PELTON_INLINE f32x16 max(f32x16 x, f32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
PELTON_INLINE f32x16 min(f32x16 x, f32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
PELTON_INLINE f32x16 sqrt(f32x16 x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
PELTON_INLINE f32x16 round_even(f32x16 x) {
    constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
}
PELTON_INLINE mask16 less(f32x16 x, f32x16 y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
PELTON_INLINE mask16 not_less(f32x16 x, f32x16 y) {  // or one of them is NaN
    return {_mm256_cmp_ps(x.a, y.a, _CMP_NLT_UQ), _mm256_cmp_ps(x.b, y.b, _CMP_NLT_UQ)};
}
PELTON_INLINE bool any(mask16 m) { return _mm256_movemask_ps(_mm256_or_ps(m.a, m.b)) != 0; }
PELTON_INLINE f32x16 select(mask16 m, f32x16 x, f32x16 y) {
    return {_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)};
}

// 32 floats: those at even places and those at odd ones.
PELTON_INLINE void load_pairs(const float* p, f32x16& even, f32x16& odd) {
    const f32x16 low = load(p), high = load(p + 16);
    const auto in_order = [](__m256 x) {
        return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
    };
    even = {in_order(_mm256_shuffle_ps(low.a, low.b, 0x88)),
            in_order(_mm256_shuffle_ps(high.a, high.b, 0x88))};
    odd = {in_order(_mm256_shuffle_ps(low.a, low.b, 0xdd)),
           in_order(_mm256_shuffle_ps(high.a, high.b, 0xdd))};
}
PELTON_INLINE void store_eight_pairs(float* p, __m256 even, __m256 odd) {
    const __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    _mm256_storeu_ps(p, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(low, high, 0x31));
}
PELTON_INLINE void store_pairs(float* p, f32x16 even, f32x16 odd) {
    store_eight_pairs(p, even.a, odd.a);
    store_eight_pairs(p + 16, even.b, odd.b);
}

// Lane i takes what lane i ^ kDistance has.
template <int kDistance>
PELTON_INLINE f32x16 exchanged(f32x16 x) {
    static_assert(kDistance == 1 || kDistance == 2 || kDistance == 4 || kDistance == 8);
    if constexpr (kDistance == 1) return {_mm256_permute_ps(x.a, 0xb1), _mm256_permute_ps(x.b, 0xb1)};
    if constexpr (kDistance == 2) return {_mm256_permute_ps(x.a, 0x4e), _mm256_permute_ps(x.b, 0x4e)};
    if constexpr (kDistance == 4)
        return {_mm256_permute2f128_ps(x.a, x.a, 1), _mm256_permute2f128_ps(x.b, x.b, 1)};
    return {x.b, x.a};
}

// int32 and bit casts
PELTON_INLINE i32x16 set1_i32(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
PELTON_INLINE i32x16 load_i32(const int32_t* p) { return {load256(p), load256(p + 8)}; }
PELTON_INLINE void store_i32(int32_t* p, i32x16 x) {
    store256(p, x.a);
    store256(p + 8, x.b);
}
PELTON_INLINE i32x16 operator+(i32x16 x, i32x16 y) {
    return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
PELTON_INLINE i32x16 operator-(i32x16 x, i32x16 y) {
    return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}
PELTON_INLINE i32x16 operator&(i32x16 x, i32x16 y) {
    return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
PELTON_INLINE i32x16 max(i32x16 x, i32x16 y) {
    return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)};
}
template <int kBits>
PELTON_INLINE i32x16 shift_left(i32x16 x) {
    return {_mm256_slli_epi32(x.a, kBits), _mm256_slli_epi32(x.b, kBits)};
}
template <int kBits>  // arithmetic
PELTON_INLINE i32x16 shift_right(i32x16 x) {
    return {_mm256_srai_epi32(x.a, kBits), _mm256_srai_epi32(x.b, kBits)};
}
PELTON_INLINE i32x16 as_i32(f32x16 x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
PELTON_INLINE f32x16 as_f32(i32x16 x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
PELTON_INLINE i32x16 to_i32(f32x16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
PELTON_INLINE f32x16 to_f32(i32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
PELTON_INLINE void store_i8(int8_t* p, i32x16 x) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    store128(p, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

PELTON_INLINE void store_u8(uint8_t* p, i32x16 x) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), 0xd8);
    store128(p, _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
// Of 32 numbers 0..65535 the 32 high bytes, then the 32 low ones.
PELTON_INLINE void store_two_bytes(uint8_t* p, i32x16 first, i32x16 second) {
    const i32x16 low = set1_i32(255);
    store_u8(p, shift_right<8>(first));
    store_u8(p + 16, shift_right<8>(second));
    store_u8(p + 32, first & low);
    store_u8(p + 48, second & low);
}

PELTON_INLINE f32x16 load_i8(const int8_t* p) {
    const __m128i bytes = load128(p);
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}

// float16 and bfloat16
PELTON_INLINE f32x16 load_f16(const uint16_t* p) {
    return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 8))};
}
PELTON_INLINE void store_f16(uint16_t* p, f32x16 x) {
    store128(p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    store128(p + 8, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
PELTON_INLINE __m256 widen_bf16(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
PELTON_INLINE f32x16 load_bf16(const uint16_t* p) {
    return {widen_bf16(load128(p)), widen_bf16(load128(p + 8))};
}
PELTON_INLINE __m256i round_bf16(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    const __m256 chosen = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
    return _mm256_srli_epi32(_mm256_castps_si256(chosen), 16);
}
PELTON_INLINE void store_bf16(uint16_t* p, f32x16 x) {
    store256(p, _mm256_permute4x64_epi64(_mm256_packus_epi32(round_bf16(x.a), round_bf16(x.b)), 0xd8));
}
// Sixteen dwords of two bfloat16 each: the low halves, the high halves.
PELTON_INLINE f32x16 bf16_low(i32x16 pairs) { return as_f32(shift_left<16>(pairs)); }
PELTON_INLINE f32x16 bf16_high(i32x16 pairs) { return as_f32(pairs & set1_i32(-65536)); }

// Reductions in one fixed tree: lane i with i + 8, then + 4, + 2, + 1.
PELTON_INLINE float reduce_add(f32x16 x) {
    const __m256 eight = _mm256_add_ps(x.a, x.b);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
PELTON_INLINE float reduce_max(f32x16 x) {
    const __m256 eight = _mm256_max_ps(x.a, x.b);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
PELTON_INLINE int32_t reduce_add(i32x16 x) {
    const __m256i eight = _mm256_add_epi32(x.a, x.b);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
PELTON_INLINE int32_t reduce_max(i32x16 x) {
    const __m256i eight = _mm256_max_epi32(x.a, x.b);
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

}  // namespace pelton::PELTON_ISA

#include "isa/simd_avx2_dots.h"  // needs the types above
