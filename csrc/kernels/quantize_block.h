// Rounding 32 activations to 8 bits, for the quantize kernel and for kernels that fuse it (norm + quantize).
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"

namespace pelton::PELTON_ISA {

// first: inputs 0..15, second: inputs 16..31. Magnitudes below 1e-30 become 0, so that 127 / largest is
// finite.
PELTON_INLINE void quantize_block(f32x16 first, f32x16 second, ActivationBlock* block) {
    const i32x16 magnitude_bits = set1_i32(0x7fffffff);
    const i32x16 magnitudes = max(as_i32(first) & magnitude_bits, as_i32(second) & magnitude_bits);
    const int32_t largest_bits = reduce_max(magnitudes);
    float largest;
    memcpy(&largest, &largest_bits, 4);
    const bool finite = largest_bits < 0x7f800000;
    const bool usable = finite && largest > 1e-30f;
    // Selecting keeps NaN and infinity out of the conversion to integers.
    const mask16 keep = first_lanes(usable ? 16 : 0);
    const f32x16 inverse = set1(usable ? 127.0f / largest : 0.0f), zero = set1(0.0f);
    const i32x16 low = to_i32(select(keep, first, zero) * inverse);
    const i32x16 high = to_i32(select(keep, second, zero) * inverse);
    store_i8(block->codes, low);
    store_i8(block->codes + 16, high);
    const int32_t low_sum = reduce_add(low), high_sum = reduce_add(high);
    const float scale = usable ? largest / 127.0f : finite ? 0.0f : __builtin_nanf("");
    block->scale = scale;
    block->scaled_sum = scale * static_cast<float>(low_sum + high_sum);
    block->half_sums[0] = static_cast<int16_t>(low_sum);
    block->half_sums[1] = static_cast<int16_t>(high_sum);
}

}  // namespace pelton::PELTON_ISA
