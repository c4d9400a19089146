// Four blocks of activations in pairs at once, as in quantize_avx512.h: the same bits as quantize_segment.
#pragma once

#include "kernels/quantize_avx512.h"

namespace pelton::PELTON_ISA {

// In all lanes: a segment's unit and what divides by it, for ordinary magnitudes.
struct FourUnits {
    __m128 unit, inverse;

    PELTON_INLINE explicit FourUnits(__m128i largest_bits) {
        const __m128 step = _mm_mul_ps(_mm_castsi128_ps(largest_bits), _mm_set1_ps(1.0f / 127.0f));
        const __m128i exponent = _mm_and_si128(_mm_castps_si128(step), _mm_set1_epi32(0x7f800000));
        const __m128i bits = _mm_sub_epi32(exponent, _mm_set1_epi32((kPairScaleBits - 1) << 23));
        unit = _mm_castsi128_ps(bits);
        inverse = _mm_castsi128_ps(_mm_sub_epi32(_mm_set1_epi32(254 << 23), bits));
    }
};

// Scales of four blocks, or of four halves of blocks, and what takes inputs to codes.
struct FourPairScales {
    __m128i scale;
    alignas(16) float inverse[4];

    PELTON_INLINE FourPairScales(__m128i largest_bits, const FourUnits& by) {
        const __m128 step = _mm_mul_ps(_mm_castsi128_ps(largest_bits), _mm_set1_ps(1.0f / 127.0f));
        constexpr int kUp = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;
        const __m128 up = _mm_round_ps(_mm_mul_ps(step, by.inverse), kUp), one = _mm_set1_ps(1.0f);
        const __m128 units = _mm_max_ps(up, one);
        scale = _mm_cvttps_epi32(units);
        _mm_store_ps(inverse, _mm_div_ps(one, _mm_mul_ps(units, by.unit)));
    }
};

PELTON_INLINE __m128i largest_in_all(__m128i x) {
    const __m128i two = _mm_max_epi32(x, _mm_shuffle_epi32(x, 0x4e));
    return _mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1));
}

// start_of_parts of four pairs of parts.
PELTON_INLINE __m128i starts_of(__m128i upper, __m128i lower) {
    static_assert(kCodeOffset == 8);
    const __m128i odd = _mm_slli_epi32(_mm_and_si128(upper, _mm_set1_epi32(1)), 16);
    const __m128i both = _mm_add_epi32(_mm_slli_epi32(upper, 16), lower);
    return _mm_sub_epi32(odd, _mm_slli_epi32(both, 3));
}

// Of each two lanes, a block's and the next one's, the first, and the second.
PELTON_INLINE __m128i even_lanes(__m128i x) { return _mm_shuffle_epi32(x, 0x08); }
PELTON_INLINE __m128i odd_lanes(__m128i x) { return _mm_shuffle_epi32(x, 0x0d); }
PELTON_INLINE __m128i swapped(__m128i x) { return _mm_shuffle_epi32(x, 0xb1); }

// What two pairs have behind their codes; low_*, high_*: of the halves of four blocks.
PELTON_INLINE void write_numbers(__m128i low_scales, __m128i high_scales, __m128i low_sums, __m128i high_sums,
                                 bool fine, __m128 unit, ActivationPair* to) {
    const __m128i scaled =
        _mm_add_epi32(_mm_mullo_epi32(low_scales, low_sums), _mm_mullo_epi32(high_scales, high_sums));
    const __m128i half = _mm_set1_epi32(1 << (kPairSumBits - 1));
    const __m128i cut = swapped(_mm_srai_epi32(_mm_add_epi32(scaled, half), kPairSumBits));
    const __m128i sums = _mm_packs_epi32(cut, cut);
    __m128i scales, starts;  // starts: both pairs' first ones, then the second ones
    if (fine) {
        const __m128i packed = _mm_packs_epi32(swapped(low_scales), swapped(high_scales));
        scales = _mm_unpacklo_epi32(packed, _mm_unpackhi_epi64(packed, packed));
        starts = starts_of(_mm_unpacklo_epi64(even_lanes(low_sums), even_lanes(high_sums)),
                           _mm_unpacklo_epi64(odd_lanes(low_sums), odd_lanes(high_sums)));
    } else {
        const __m128i zero = _mm_setzero_si128(), both = _mm_add_epi32(low_sums, high_sums);
        scales = _mm_unpacklo_epi32(_mm_packs_epi32(swapped(low_scales), zero), zero);
        starts = _mm_move_epi64(starts_of(even_lanes(both), odd_lanes(both)));
    }
    const __m128i first = _mm_unpacklo_epi32(sums, starts),
                  second = _mm_unpackhi_epi32(starts, _mm_castps_si128(unit));
    const __m128i heads[2] = {_mm_unpacklo_epi64(scales, first), _mm_unpackhi_epi64(scales, first)};
    const __m128i tails[2] = {second, _mm_unpackhi_epi64(second, second)};
    PELTON_UNROLL for (int pair = 0; pair < 2; ++pair) {
        memcpy(to[pair].scales, &heads[pair], 16);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to[pair].starts + 1), tails[pair]);
    }
}

// Four blocks' magnitudes: the largest of each one's first half, or of the block, and of its second half.
struct FourLargest {
    __m128i low, high;

    PELTON_INLINE static FourLargest of(const float* x, bool fine) {
        const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
        __m512i first[4], second[4];
        PELTON_UNROLL for (int b = 0; b < 4; ++b) {
            first[b] = _mm512_and_si512(_mm512_loadu_si512(x + b * kBlockInputs), magnitude);
            second[b] = _mm512_and_si512(_mm512_loadu_si512(x + b * kBlockInputs + 16), magnitude);
            if (!fine) first[b] = _mm512_max_epi32(first[b], second[b]);
        }
        const __m128i low = largest_of_four(first);
        return {low, fine ? largest_of_four(second) : low};
    }
};

// Two pairs.
PELTON_INLINE void quantize_four_blocks(const float* x, const FourLargest& largest, const FourUnits& units,
                                        bool fine, ActivationPair* to) {
    const FourPairScales low_by(largest.low, units);
    const FourPairScales high_by = fine ? FourPairScales(largest.high, units) : low_by;
    __m256i codes[4];
    PELTON_UNROLL for (int b = 0; b < 4; ++b) {
        const float* own = x + b * kBlockInputs;
        codes[b] = rounded_codes(_mm512_loadu_ps(own), _mm512_loadu_ps(own + 16), low_by.inverse[b],
                                 high_by.inverse[b]);
        memcpy(to[b / 2].codes + b % 2 * kBlockInputs, &codes[b], sizeof codes[b]);
    }
    const __m256i sums = sums_of_four(codes);
    write_numbers(low_by.scale, high_by.scale, _mm256_castsi256_si128(sums),
                  _mm256_extracti128_si256(sums, 1), fine, units.unit, to);
}

// False, and nothing done, where it needs more care than quick arithmetic takes. The last blocks, where they
// are less than four, run with zeros behind them.
PELTON_INLINE bool quantize_ordinary_segment(const float* x, int64_t blocks, bool fine, ActivationPair* to) {
    constexpr int64_t kFour = 4 * kBlockInputs;
    constexpr int kMostFours = (2 * kMostSegmentPairs + 3) / 4;
    const int64_t fours = blocks / 4, left = blocks % 4;
    alignas(64) float last[kFour];
    if (left > 0) {
        memset(last, 0, sizeof last);
        memcpy(last, x + fours * kFour, static_cast<size_t>(left * kBlockInputs) * sizeof(float));
    }
    FourLargest largest[kMostFours];
    __m128i of_all = _mm_setzero_si128();
    for (int64_t i = 0; i * 4 < blocks; ++i) {
        largest[i] = FourLargest::of(i < fours ? x + i * kFour : last, fine);
        of_all = _mm_max_epi32(of_all, _mm_max_epi32(largest[i].low, largest[i].high));
    }
    of_all = largest_in_all(of_all);
    const int32_t bits = _mm_cvtsi128_si32(of_all);
    if (bits < kLeastMagnitudeBits || bits >= kMostMagnitudeBits) return false;
    const FourUnits units(of_all);
    for (int64_t i = 0; i < fours; ++i)
        quantize_four_blocks(x + i * kFour, largest[i], units, fine, to + 2 * i);
    if (left > 0) {
        ActivationPair pairs[2];
        quantize_four_blocks(last, largest[fours], units, fine, pairs);
        memcpy(to + 2 * fours, pairs, static_cast<size_t>((left + 1) / 2) * sizeof *pairs);
    }
    return true;
}

}  // namespace pelton::PELTON_ISA
