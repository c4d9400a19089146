// Sixteen lanes on AVX-512 (F, BW, DQ, VL, VNNI). Included by simd.h only.
#pragma once

#include <immintrin.h>

namespace pelton::PELTON_ISA {

struct f32x16 {
    __m512 v;
};
struct i32x16 {
    __m512i v;
};
struct u8x64 {
    __m512i v;
};
struct mask16 {
    __mmask16 v;
};

// float32
PELTON_INLINE f32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
PELTON_INLINE f32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
PELTON_INLINE void store(float* p, f32x16 a) { _mm512_storeu_ps(p, a.v); }
// Past the caches, to a 64-byte boundary; other threads may read after a fence.
PELTON_INLINE void stream(float* p, f32x16 a) { _mm512_stream_ps(p, a.v); }
PELTON_INLINE void stream_fence() { _mm_sfence(); }
PELTON_INLINE mask16 first_lanes(int count) { return {static_cast<__mmask16>((1u << count) - 1u)}; }
PELTON_INLINE f32x16 load_first(const float* p, int count) {
    return {_mm512_maskz_loadu_ps(first_lanes(count).v, p)};
}
PELTON_INLINE void store_first(float* p, int count, f32x16 a) {
    _mm512_mask_storeu_ps(p, first_lanes(count).v, a.v);
}
PELTON_INLINE f32x16 operator+(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
PELTON_INLINE f32x16 operator-(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
PELTON_INLINE f32x16 operator*(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
PELTON_INLINE f32x16 operator/(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
PELTON_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
PELTON_INLINE f32x16 max(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
PELTON_INLINE f32x16 min(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
PELTON_INLINE f32x16 sqrt(f32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
PELTON_INLINE f32x16 round_even(f32x16 a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
PELTON_INLINE mask16 less(f32x16 a, f32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
PELTON_INLINE mask16 not_less(f32x16 a, f32x16 b) {  // or one of them is NaN
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ)};
}
PELTON_INLINE bool any(mask16 m) { return m.v != 0; }
PELTON_INLINE f32x16 select(mask16 m, f32x16 a, f32x16 b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }

// 32 floats: those at even places and those at odd ones.
PELTON_INLINE void load_pairs(const float* p, f32x16& even, f32x16& odd) {
    const __m512 low = _mm512_loadu_ps(p), high = _mm512_loadu_ps(p + 16);
    const __m512i first = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even.v = _mm512_permutex2var_ps(low, first, high);
    odd.v = _mm512_permutex2var_ps(low, _mm512_add_epi32(first, _mm512_set1_epi32(1)), high);
}
PELTON_INLINE void store_pairs(float* p, f32x16 even, f32x16 odd) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    _mm512_storeu_ps(p, _mm512_permutex2var_ps(even.v, first, odd.v));
    _mm512_storeu_ps(p + 16,
                     _mm512_permutex2var_ps(even.v, _mm512_add_epi32(first, _mm512_set1_epi32(8)), odd.v));
}

// Lane i takes what lane i ^ kDistance has.
template <int kDistance>
PELTON_INLINE f32x16 exchanged(f32x16 a) {
    static_assert(kDistance == 1 || kDistance == 2 || kDistance == 4 || kDistance == 8);
    if constexpr (kDistance == 1) return {_mm512_permute_ps(a.v, 0xb1)};
    if constexpr (kDistance == 2) return {_mm512_permute_ps(a.v, 0x4e)};
    if constexpr (kDistance == 4) return {_mm512_shuffle_f32x4(a.v, a.v, 0xb1)};
    return {_mm512_shuffle_f32x4(a.v, a.v, 0x4e)};
}

// int32 and bit casts
PELTON_INLINE i32x16 set1_i32(int32_t x) { return {_mm512_set1_epi32(x)}; }
PELTON_INLINE i32x16 load_i32(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
PELTON_INLINE void store_i32(int32_t* p, i32x16 a) { _mm512_storeu_si512(p, a.v); }
PELTON_INLINE i32x16 operator+(i32x16 a, i32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
PELTON_INLINE i32x16 operator-(i32x16 a, i32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
PELTON_INLINE i32x16 operator&(i32x16 a, i32x16 b) { return {_mm512_and_si512(a.v, b.v)}; }
PELTON_INLINE i32x16 max(i32x16 a, i32x16 b) { return {_mm512_max_epi32(a.v, b.v)}; }
template <int kBits>
PELTON_INLINE i32x16 shift_left(i32x16 a) {
    return {_mm512_slli_epi32(a.v, kBits)};
}
template <int kBits>  // arithmetic
PELTON_INLINE i32x16 shift_right(i32x16 a) {
    return {_mm512_srai_epi32(a.v, kBits)};
}
PELTON_INLINE i32x16 as_i32(f32x16 a) { return {_mm512_castps_si512(a.v)}; }
PELTON_INLINE f32x16 as_f32(i32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
PELTON_INLINE i32x16 to_i32(f32x16 a) { return {_mm512_cvtps_epi32(a.v)}; }
PELTON_INLINE f32x16 to_f32(i32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
PELTON_INLINE void store_i8(int8_t* p, i32x16 a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}

// Of 32 numbers 0..65535 the 32 high bytes, then the 32 low ones.
PELTON_INLINE void store_two_bytes(uint8_t* p, i32x16 first, i32x16 second) {
    const __m512i words = _mm512_packus_epi32(first.v, second.v);  // by fours, of the first and of the second
    const __m512i apart =
        _mm512_broadcast_i32x4(_mm_setr_epi8(1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_shuffle_epi8(words, apart)));
}

PELTON_INLINE f32x16 load_i8(const int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}

// float16 and bfloat16
PELTON_INLINE f32x16 load_f16(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
PELTON_INLINE void store_f16(uint16_t* p, f32x16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
PELTON_INLINE f32x16 load_bf16(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
// By integers: the hardware conversion flushes denormals, other levels would not.
PELTON_INLINE void store_bf16(uint16_t* p, f32x16 a) {
    const __m512i bits = _mm512_castps_si512(a.v), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}
// Sixteen dwords of two bfloat16 each: the low halves, the high halves.
PELTON_INLINE f32x16 bf16_low(i32x16 pairs) { return as_f32(shift_left<16>(pairs)); }
PELTON_INLINE f32x16 bf16_high(i32x16 pairs) { return as_f32(pairs & set1_i32(-65536)); }

// Reductions in one fixed tree: lane i with i + 8, then + 4, + 2, + 1.
PELTON_INLINE float reduce_add(f32x16 a) {
    const __m256 high = _mm512_extractf32x8_ps(a.v, 1);
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
PELTON_INLINE float reduce_max(f32x16 a) {
    const __m256 high = _mm512_extractf32x8_ps(a.v, 1);
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
PELTON_INLINE int32_t reduce_add(i32x16 a) {
    const __m256i high = _mm512_extracti32x8_epi32(a.v, 1);
    const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(a.v), high);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
PELTON_INLINE int32_t reduce_max(i32x16 a) {
    const __m256i high = _mm512_extracti32x8_epi32(a.v, 1);
    const __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256(a.v), high);
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

// Integer dot products: byte 4 * lane + b of `codes` (unsigned) times q[b] (signed), b = 0..3.
PELTON_INLINE u8x64 load_u8x64(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
PELTON_INLINE void store_u8x64(uint8_t* p, u8x64 a) { _mm512_storeu_si512(p, a.v); }
PELTON_INLINE u8x64 as_bytes(i32x16 a) { return {a.v}; }
PELTON_INLINE i32x16 as_i32(u8x64 a) { return {a.v}; }
PELTON_INLINE u8x64 low_nibbles(u8x64 a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
PELTON_INLINE u8x64 high_nibbles(u8x64 a) {
    return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
// High nibbles where they are: 16 times the codes.
PELTON_INLINE u8x64 upper_nibbles(u8x64 a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(-16))}; }
PELTON_INLINE u8x64 load_table(const uint8_t* p) {
    return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
PELTON_INLINE u8x64 lookup(u8x64 table, u8x64 index) { return {_mm512_shuffle_epi8(table.v, index.v)}; }

PELTON_INLINE __m512i broadcast_dword(const void* p) {
    int32_t dword;
    memcpy(&dword, p, 4);
    return _mm512_set1_epi32(dword);
}
// acc + the four bytes of each lane of `codes` (unsigned) times those of `factors` (signed). Of the intrinsic
// gcc 12 makes a copy of each sum on each way round a loop (products of attention took a third longer);
// DotSum, whose sums end with a block, keeps it for its operand in memory.
PELTON_INLINE i32x16 add_byte_products(i32x16 acc, u8x64 codes, i32x16 factors) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(codes.v), "v"(factors.v));
    return acc;
}
template <bool kNarrow>  // narrow: every code is at most 15 and at most 8 steps are summed
struct DotSum {
    __m512i v;
    static constexpr bool kTakesStart = true;
    static PELTON_INLINE DotSum from(i32x16 start) { return {start.v}; }
    PELTON_INLINE void step(u8x64 codes, const int8_t* q) {
        v = _mm512_dpbusd_epi32(v, codes.v, broadcast_dword(q));
    }
    PELTON_INLINE void step(u8x64 codes, i32x16 factors) {
        asm("vpdpbusd %2, %1, %0" : "+v"(v) : "v"(codes.v), "v"(factors.v));
    }
    PELTON_INLINE i32x16 total() const { return {v}; }
};
// acc + low half of each lane of `weights` * pair[0] + high half * pair[1], all int16.
PELTON_INLINE i32x16 add_pair_products(i32x16 acc, i32x16 weights, const int16_t* pair) {
    return {_mm512_dpwssd_epi32(acc.v, weights.v, broadcast_dword(pair))};
}
// acc + low halves' product + high halves' product, of int16.
PELTON_INLINE i32x16 add_pair_products(i32x16 acc, i32x16 a, i32x16 b) {
    asm("vpdpwssd %2, %1, %0" : "+v"(acc.v) : "v"(a.v), "v"(b.v));
    return acc;
}
// Products of halves, int16, without their last 15 bits, to the nearest.
PELTON_INLINE i32x16 scaled_pairs(i32x16 a, i32x16 b) { return {_mm512_mulhrs_epi16(a.v, b.v)}; }

}  // namespace pelton::PELTON_ISA
