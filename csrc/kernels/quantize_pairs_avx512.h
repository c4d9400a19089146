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

// What kPairs of two pairs have behind their codes; low_*, high_*: of the halves of four blocks.
template <int kPairs>
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
    PELTON_UNROLL for (int pair = 0; pair < kPairs; ++pair) {
        memcpy(to[pair].scales, &heads[pair], 16);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to[pair].starts + 1), tails[pair]);
    }
}

// Magnitudes of two pairs' blocks, or of kBlocks of them: the largest of each one's first half, or of the
// block, and of its second half. What is missing counts as zeros.
struct FourLargest {
    __m128i low, high;

    template <int kBlocks>
    PELTON_INLINE static FourLargest of(const float* x, bool fine) {
        const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
        __m512i first[4], second[4];
        PELTON_UNROLL for (int b = 0; b < 4; ++b) {
            first[b] = second[b] = _mm512_setzero_si512();
            if (b >= kBlocks) continue;
            first[b] = _mm512_and_si512(_mm512_loadu_si512(x + b * kBlockInputs), magnitude);
            second[b] = _mm512_and_si512(_mm512_loadu_si512(x + b * kBlockInputs + 16), magnitude);
            if (!fine) first[b] = _mm512_max_epi32(first[b], second[b]);
        }
        const __m128i low = largest_of_four(first);
        return {low, fine ? largest_of_four(second) : low};
    }
};

PELTON_INLINE __m512i rounded(const float* x, float inverse) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
}

// Codes of a pair, whose blocks' halves are divided by low[block] and high[block]; sums of the four halves.
PELTON_INLINE __m128i round_pair(const float* x, const float* low, const float* high, int8_t* codes) {
    const __m512i first = _mm512_packs_epi32(rounded(x, low[0]), rounded(x + 16, high[0]));
    const __m512i second = _mm512_packs_epi32(rounded(x + 32, low[1]), rounded(x + 48, high[1]));
    // In each lane of 16 bytes four of each half.
    const __m512i mixed = _mm512_packs_epi16(first, second);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(codes, _mm512_permutexvar_epi32(order, mixed));
    const __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), mixed);
    const __m256i twos = _mm256_add_epi32(_mm512_castsi512_si256(fours), _mm512_extracti64x4_epi64(fours, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(twos), _mm256_extracti128_si256(twos, 1));
}

// kPairs of two pairs.
template <int kPairs>
PELTON_INLINE void quantize_two_pairs(const float* x, const FourLargest& largest, const FourUnits& units,
                                      bool fine, ActivationPair* to) {
    const FourPairScales low_by(largest.low, units);
    const FourPairScales high_by = fine ? FourPairScales(largest.high, units) : low_by;
    __m128i sums[2] = {};  // of each pair's four halves
    PELTON_UNROLL for (int pair = 0; pair < kPairs; ++pair) {
        const float* own = x + pair * kPairInputs;
        const float* low = low_by.inverse + 2 * pair;
        const float* high = high_by.inverse + 2 * pair;
        sums[pair] = round_pair(own, low, high, to[pair].codes);
    }
    const __m128 first = _mm_castsi128_ps(sums[0]), second = _mm_castsi128_ps(sums[1]);
    write_numbers<kPairs>(low_by.scale, high_by.scale, _mm_castps_si128(_mm_shuffle_ps(first, second, 0x88)),
                          _mm_castps_si128(_mm_shuffle_ps(first, second, 0xdd)), fine, units.unit, to);
}

// A segment of whole pairs, of ordinary magnitudes.
struct OrdinarySegment {
    static constexpr int64_t kFour = 4 * kBlockInputs;
    const float* x;
    int64_t fours;
    bool two_more;
    ActivationPair* to;
    FourLargest largest[(2 * kMostSegmentPairs + 3) / 4];
    __m128i of_all;

    // False where it needs more care than quick arithmetic takes.
    PELTON_INLINE bool measure(const float* from, int64_t blocks, bool fine, ActivationPair* pairs) {
        if (blocks % 2 != 0) return false;
        x = from;
        fours = blocks / 4;
        two_more = blocks % 4 != 0;
        to = pairs;
        of_all = _mm_setzero_si128();
        const auto add = [&](const FourLargest& four) {
            of_all = _mm_max_epi32(of_all, _mm_max_epi32(four.low, four.high));
            return four;
        };
        for (int64_t i = 0; i < fours; ++i) largest[i] = add(FourLargest::of<4>(x + i * kFour, fine));
        if (two_more) largest[fours] = add(FourLargest::of<2>(x + fours * kFour, fine));
        of_all = largest_in_all(of_all);
        const int32_t bits = _mm_cvtsi128_si32(of_all);
        return bits >= kLeastMagnitudeBits && bits < kMostMagnitudeBits;
    }

    PELTON_INLINE void write(bool fine) const {
        const FourUnits units(of_all);
        for (int64_t i = 0; i < fours; ++i)
            quantize_two_pairs<2>(x + i * kFour, largest[i], units, fine, to + 2 * i);
        if (two_more) quantize_two_pairs<1>(x + fours * kFour, largest[fours], units, fine, to + 2 * fours);
    }
};

// Segments are measured, then written: by itself each waits for its own maximum (128 inputs: 27 ns, not 22).
template <bool kFine>
class OrdinarySegments {
  public:
    // False, and nothing done, unless the segment is ordinary; it is read and written by the next write() at
    // the latest.
    PELTON_INLINE bool take(const float* x, int64_t blocks, ActivationPair* to) {
        if (!segments_[count_].measure(x, blocks, kFine, to)) return false;
        if (++count_ == kMost) write();
        return true;
    }
    PELTON_INLINE void write() {
        for (int i = 0; i < count_; ++i) segments_[i].write(kFine);
        count_ = 0;
    }

  private:
    static constexpr int kMost = 8;
    OrdinarySegment segments_[kMost];
    int count_ = 0;
};

}  // namespace pelton::PELTON_ISA
