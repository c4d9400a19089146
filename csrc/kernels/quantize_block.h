// Rounding 32 activations to 8 bits.
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"

namespace pelton::PELTON_ISA {

// The factor that takes inputs to codes, and the scale that takes them back. Magnitudes below 1e-30 become 0,
// so that 127 / largest is finite.
struct CodeScale {
    float inverse, scale;
    bool usable;
};

PELTON_INLINE CodeScale code_scale(i32x16 magnitudes) {
    const int32_t largest_bits = reduce_max(magnitudes);
    float largest;
    memcpy(&largest, &largest_bits, 4);
    const bool finite = largest_bits < 0x7f800000;
    const bool usable = finite && largest > 1e-30f;
    return {usable ? 127.0f / largest : 0.0f,
            usable   ? largest / 127.0f
            : finite ? 0.0f
                     : __builtin_nanf(""),
            usable};
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

}  // namespace pelton::PELTON_ISA
