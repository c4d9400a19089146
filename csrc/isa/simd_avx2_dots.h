// Bytes and their dot products on AVX2, by AVX-VNNI where the level has it. Included by simd_avx2.h only.
#pragma once

#include <immintrin.h>

namespace pelton::PELTON_ISA {

// Integer dot products: byte 4 * lane + b of `codes` (unsigned) times q[b] (signed), b = 0..3.
PELTON_INLINE u8x64 load_u8x64(const uint8_t* p) { return {load256(p), load256(p + 32)}; }
PELTON_INLINE void store_u8x64(uint8_t* p, u8x64 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), x.b);
}
PELTON_INLINE u8x64 as_bytes(i32x16 x) { return {x.a, x.b}; }
PELTON_INLINE i32x16 as_i32(u8x64 x) { return {x.a, x.b}; }
PELTON_INLINE u8x64 low_nibbles(u8x64 x) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
PELTON_INLINE u8x64 high_nibbles(u8x64 x) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(_mm256_srli_epi16(x.a, 4), mask),
            _mm256_and_si256(_mm256_srli_epi16(x.b, 4), mask)};
}
// High nibbles where they are: 16 times the codes.
PELTON_INLINE u8x64 upper_nibbles(u8x64 x) {
    const __m256i mask = _mm256_set1_epi8(-16);
    return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
PELTON_INLINE u8x64 load_table(const uint8_t* p) {
    const __m256i table = _mm256_broadcastsi128_si256(load128(p));
    return {table, table};
}
PELTON_INLINE u8x64 lookup(u8x64 table, u8x64 index) {
    return {_mm256_shuffle_epi8(table.a, index.a), _mm256_shuffle_epi8(table.b, index.b)};
}
PELTON_INLINE __m256i broadcast_dword(const void* p) {
    int32_t dword;
    memcpy(&dword, p, 4);
    return _mm256_set1_epi32(dword);
}

#if defined(PELTON_ISA_avx_vnni)
PELTON_INLINE i32x16 add_byte_products(i32x16 acc, u8x64 codes, i32x16 factors) {
    return {_mm256_dpbusd_avx_epi32(acc.a, codes.a, factors.a),
            _mm256_dpbusd_avx_epi32(acc.b, codes.b, factors.b)};
}

PELTON_INLINE i32x16 add_pair_products(i32x16 acc, i32x16 weights, const int16_t* pair) {
    const __m256i both = broadcast_dword(pair);
    return {_mm256_dpwssd_avx_epi32(acc.a, weights.a, both), _mm256_dpwssd_avx_epi32(acc.b, weights.b, both)};
}
#else
// acc + the four bytes of each lane of `codes` (unsigned) times those of `factors` (signed). Codes up to 255
// would saturate the byte multiply, so even and odd bytes go through int16 products.
PELTON_INLINE __m256i add_byte_products(__m256i acc, __m256i codes, __m256i factors) {
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(factors, 8), 8);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(255)), even));
    return _mm256_add_epi32(acc,
                            _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), _mm256_srai_epi16(factors, 8)));
}
PELTON_INLINE i32x16 add_byte_products(i32x16 acc, u8x64 codes, i32x16 factors) {
    return {add_byte_products(acc.a, codes.a, factors.a), add_byte_products(acc.b, codes.b, factors.b)};
}

// acc + low half of each lane of `weights` * pair[0] + high half * pair[1], all int16.
PELTON_INLINE i32x16 add_pair_products(i32x16 acc, i32x16 weights, const int16_t* pair) {
    const __m256i both = broadcast_dword(pair);
    return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(weights.a, both)),
            _mm256_add_epi32(acc.b, _mm256_madd_epi16(weights.b, both))};
}
#endif
// acc + low halves' product + high halves' product, of int16.
PELTON_INLINE i32x16 add_pair_products(i32x16 acc, i32x16 a, i32x16 b) {
    return acc + i32x16{_mm256_madd_epi16(a.a, b.a), _mm256_madd_epi16(a.b, b.b)};
}
// Products of halves, int16, without their last 15 bits, to the nearest.
PELTON_INLINE i32x16 scaled_pairs(i32x16 x, i32x16 y) {
    return {_mm256_mulhrs_epi16(x.a, y.a), _mm256_mulhrs_epi16(x.b, y.b)};
}

template <bool kNarrow>
struct DotSum {
    i32x16 sum;
    static constexpr bool kTakesStart = true;
    static PELTON_INLINE DotSum from(i32x16 start) { return {start}; }
    PELTON_INLINE void step(u8x64 codes, const int8_t* q) {
        const __m256i signed4 = broadcast_dword(q);
        sum = add_byte_products(sum, codes, {signed4, signed4});
    }
    PELTON_INLINE void step(u8x64 codes, i32x16 factors) { sum = add_byte_products(sum, codes, factors); }
    PELTON_INLINE i32x16 total() const { return sum; }
};

#if !defined(PELTON_ISA_avx_vnni)
// Codes up to 15, at most 8 steps: pair sums stay within 8 * 2 * 15 * 127 = 30480, so int16 holds them.
template <>
struct DotSum<true> {
    __m256i a, b;
    static constexpr bool kTakesStart = false;
    static PELTON_INLINE DotSum from(i32x16) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    PELTON_INLINE void step(u8x64 codes, const int8_t* q) {
        const __m256i signed4 = broadcast_dword(q);
        a = _mm256_add_epi16(a, _mm256_maddubs_epi16(codes.a, signed4));
        b = _mm256_add_epi16(b, _mm256_maddubs_epi16(codes.b, signed4));
    }
    PELTON_INLINE void step(u8x64 codes, i32x16 factors) {
        a = _mm256_add_epi16(a, _mm256_maddubs_epi16(codes.a, factors.a));
        b = _mm256_add_epi16(b, _mm256_maddubs_epi16(codes.b, factors.b));
    }
    PELTON_INLINE i32x16 total() const {
        const __m256i ones = _mm256_set1_epi16(1);
        return {_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones)};
    }
};
#endif

}  // namespace pelton::PELTON_ISA
