// Rounding activations to 8 bits for weights in pairs. The scales of a segment are integers times a
// power of two, its unit; a code is x / (unit * scale).
#include "kernels/quantize_block.h"
#if defined(PELTON_ISA_avx512)
#    include "kernels/quantize_pairs_avx512.h"
#endif

namespace pelton::PELTON_ISA {

namespace {

constexpr int kMostHalves = 4 * kMostSegmentPairs;

// The unit by which the largest step of a segment is in 2^12..2^13.
struct SegmentUnit {
    float unit, inverse;
    bool usable;
};

PELTON_INLINE float step_of(int32_t largest_bits) {
    return float_of_bits(static_cast<uint32_t>(largest_bits)) * (1.0f / 127.0f);
}

PELTON_INLINE SegmentUnit segment_unit(int32_t largest_bits) {
    if (largest_bits < kLeastMagnitudeBits) return {1.0f, 0.0f, false};
    if (largest_bits >= kMostMagnitudeBits) return {float_of_bits(kNanUnitBits), 0.0f, false};
    const uint32_t bits = unit_bits(bits_of_float(step_of(largest_bits)));
    return {float_of_bits(bits), float_of_bits(inverse_unit_bits(bits)), true};
}

// 1..2^13: how many units a step takes.
PELTON_INLINE int32_t units_of(float step, float inverse_unit) {
    const float units = step * inverse_unit;
    const int32_t whole = static_cast<int32_t>(units);
    const int32_t up = static_cast<float>(whole) < units ? whole + 1 : whole;
    return up < 1 ? 1 : up;
}

PELTON_INLINE void round_half(const float* x, float inverse, bool usable, int8_t* codes, int32_t* sum) {
    const f32x16 values = select(first_lanes(usable ? 16 : 0), load(x), set1(0.0f));
    const i32x16 rounded = to_i32(values * set1(inverse));
    store_i8(codes, rounded);
    *sum = reduce_add(rounded);
}

// What products read beside the codes, of one pair's four halves.
PELTON_INLINE void finish_pair(const int32_t* scales, const int32_t* sums, bool fine, float unit,
                               ActivationPair* to) {
    for (int b = 0; b < 2; ++b) {
        const int32_t scaled = scales[2 * b] * sums[2 * b] + scales[2 * b + 1] * sums[2 * b + 1];
        to->sums[1 - b] = static_cast<int16_t>((scaled + (1 << (kPairSumBits - 1))) >> kPairSumBits);
        to->scales[1 - b] = static_cast<int16_t>(scales[2 * b]);
        to->scales[3 - b] = static_cast<int16_t>(fine ? scales[2 * b + 1] : 0);
    }
    to->starts[0] =
        fine ? start_of_parts(sums[0], sums[2]) : start_of_parts(sums[0] + sums[1], sums[2] + sums[3]);
    to->starts[1] = fine ? start_of_parts(sums[1], sums[3]) : 0;
    to->unit = unit;
}

void quantize_segment(const float* x, int64_t blocks, bool fine, ActivationPair* to) {
    const i32x16 magnitude_bits = set1_i32(0x7fffffff);
    int32_t largest[kMostHalves] = {}, of_all = 0;
    for (int64_t half = 0; half < 2 * blocks; ++half) {
        largest[half] = reduce_max(as_i32(load(x + 16 * half)) & magnitude_bits);
        of_all = largest[half] > of_all ? largest[half] : of_all;
    }
    const SegmentUnit by = segment_unit(of_all);
    int32_t scales[kMostHalves], sums[kMostHalves] = {};
    const int64_t pairs = (blocks + 1) / 2;
    for (int64_t half = 0; half < 4 * pairs; ++half) {
        const int32_t other = largest[half ^ 1], own = largest[half];
        scales[half] = by.usable ? units_of(step_of(fine || own > other ? own : other), by.inverse) : 0;
        int8_t* codes = to[half / 4].codes + 16 * (half % 4);
        if (half < 2 * blocks)
            round_half(x + 16 * half, by.usable ? 1.0f / (static_cast<float>(scales[half]) * by.unit) : 0.0f,
                       by.usable, codes, &sums[half]);
        else
            memset(codes, 0, 16);
    }
    for (int64_t pair = 0; pair < pairs; ++pair)
        finish_pair(scales + 4 * pair, sums + 4 * pair, fine, by.unit, to + pair);
}

template <bool kFine>
void quantize_rows(const PairRounding& call) {
    const int64_t blocks = call.width / kBlockInputs, most = 2 * call.segment;
#if defined(PELTON_ISA_avx512)
    OrdinarySegments<kFine> ordinary;
#endif
    for (int64_t row = 0; row < call.rows; ++row) {
        ActivationPair* pairs = call.pairs + row * call.pair_stride;
        for (int64_t first = 0; first < blocks; first += most) {
            const int64_t left = blocks - first, count = left < most ? left : most;
            const float* from = call.x + row * call.stride + first * kBlockInputs;
#if defined(PELTON_ISA_avx512)
            if (!ordinary.take(from, count, pairs))
#endif
                quantize_segment(from, count, kFine, pairs);
            pairs += (count + 1) / 2;
        }
    }
#if defined(PELTON_ISA_avx512)
    ordinary.write();
#endif
}

}  // namespace

void quantize_pairs(const PairRounding& call) {
    call.fine ? quantize_rows<true>(call) : quantize_rows<false>(call);
}

}  // namespace pelton::PELTON_ISA
