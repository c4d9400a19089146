// Rounding 32 activations to 8 bits.
#pragma once

#include "isa/half.h"
#include "isa/simd.h"
#include "kernels/linear.h"

namespace pelton::PELTON_ISA {

// The factor that takes inputs to codes, and the scale that takes them back.
struct CodeScale {
    float inverse, scale;
    bool usable;
};

// Magnitudes below the least become 0, such as are not below the most are as good as infinite: a norm's
// squares are. So a scale of activations times one of weights is far from both ends of float32's exponents.
constexpr int32_t kLeastMagnitudeBits = 0x17800000, kMostMagnitudeBits = 0x71800000;  // 2^-80, 2^100
// Of blocks of zeros any scale is right; of such as hold a NaN or an infinity it is -infinity.
constexpr uint32_t kZeroScaleBits = 0x14000000, kBrokenScaleBits = 0xff800000;
constexpr int32_t kScaleRestBits = (1 << (23 - kScaleBits)) - 1;

PELTON_INLINE CodeScale code_scale(i32x16 magnitudes) {
    const int32_t largest_bits = reduce_max(magnitudes);
    if (largest_bits < kLeastMagnitudeBits) return {0.0f, float_of_bits(kZeroScaleBits), false};
    if (largest_bits >= kMostMagnitudeBits) return {0.0f, float_of_bits(kBrokenScaleBits), false};
    const float step = float_of_bits(static_cast<uint32_t>(largest_bits)) * (1.0f / 127.0f);
    constexpr uint32_t kRest = kScaleRestBits;
    const float scale = float_of_bits((bits_of_float(step) + kRest) & ~kRest);
    return {1.0f / scale, scale, true};
}

// Selecting keeps NaN and infinity out of the conversion to integers.
PELTON_INLINE i32x16 codes_of(f32x16 x, const CodeScale& by) {
    return to_i32(select(first_lanes(by.usable ? 16 : 0), x, set1(0.0f)) * set1(by.inverse));
}

// first: inputs 0..15, second: inputs 16..31.
PELTON_INLINE void quantize_block(f32x16 first, f32x16 second, bool fine, ActivationBlock* block) {
    const i32x16 magnitude_bits = set1_i32(0x7fffffff);
    const i32x16 low_magnitudes = as_i32(first) & magnitude_bits;
    const i32x16 high_magnitudes = as_i32(second) & magnitude_bits;
    CodeScale low_by, high_by;
    if (fine) {
        low_by = code_scale(low_magnitudes);
        high_by = code_scale(high_magnitudes);
    } else {
        low_by = high_by = code_scale(max(low_magnitudes, high_magnitudes));
    }
    const i32x16 low = codes_of(first, low_by), high = codes_of(second, high_by);
    store_i8(block->codes, low);
    store_i8(block->codes + 16, high);
    const int32_t low_sum = reduce_add(low), high_sum = reduce_add(high);
    block->scales[0] = low_by.scale;
    block->scales[1] = high_by.scale;
    block->scaled_sum =
        fine ? low_by.scale * static_cast<float>(low_sum) + high_by.scale * static_cast<float>(high_sum)
             : low_by.scale * static_cast<float>(low_sum + high_sum);
    block->half_sums[0] = static_cast<int16_t>(low_sum);
    block->half_sums[1] = static_cast<int16_t>(high_sum);
}

// Of pairs. A unit is a power of two with which the largest step of a segment is in 2^12..2^13.
constexpr uint32_t kNanUnitBits = 0x7fc00000;
PELTON_INLINE uint32_t unit_bits(uint32_t step_bits) {
    return (step_bits & 0x7f800000u) - (static_cast<uint32_t>(kPairScaleBits - 1) << 23);
}
PELTON_INLINE uint32_t inverse_unit_bits(uint32_t bits) { return (254u << 23) - bits; }

// -8 * sum of codes of both parts, as halves of a register; the upper one plus 1 where its sum is odd, as a
// negative lower half takes 1 from the upper, in every second product. Without it all outputs were too small
// by half a code's worth, which cost a quarter of the whole divergence from the reference.
PELTON_INLINE int32_t start_of_parts(int32_t upper, int32_t lower) {
    const auto odd = static_cast<uint32_t>(upper & 1);
    const auto both = (static_cast<uint32_t>(upper) << 16) + static_cast<uint32_t>(lower);
    return static_cast<int32_t>((odd << 16) - kCodeOffset * both);
}

}  // namespace pelton::PELTON_ISA
