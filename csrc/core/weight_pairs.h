// Weights of 4 bits in pairs of blocks, all of whose numbers are integers: what products of many rows read
// quickest. 64 inputs of a panel are 512 bytes of codes, four inputs of an output after four of the next one,
// block 1 in the high nibbles and block 2 in the low ones; 16 pairs of int16 scales and, if there are any, 16
// of minimums, again block 1 in the high half. After the last pair comes a float unit for each output, a
// power of two. A weight of block b is
//     unit / 2^15 * scale[b] * (code - 8) + unit / 2^10 * minimum[b]
// where minimums are those of kBlock + 8 * scale, or 0. As a rule scales are exact where they are an eighth
// of a row's largest or more, and minimums to within a 500th of that. The unit of a row with a NaN or
// infinity is NaN.
#pragma once

#include <cstdint>

#include "kernels/linear.h"

namespace pelton {

// Whether such weights can be had from weights held so: 4 bits, groups of 32, float16 scales, and minimums or
// an offset of 8.
bool has_pairs(const WeightLayout& layout) noexcept;
WeightLayout pairs_layout(int segment, bool has_minimum) noexcept;
std::int64_t pairs_panel_bytes(std::int64_t inputs, bool has_minimum) noexcept;

// One panel, [pairs_panel_bytes] of zeros, from one of `plain`, whose layout has_pairs(). Units are such that
// no total of `segment` pairs can leave 32 bits, whatever the activations.
void pack_pairs(const WeightView& plain, std::int64_t panel, int segment, std::uint8_t* to);

// One output of a panel of `weight`, in pairs, as float32 [inputs].
void unpack_pairs(const WeightView& weight, std::int64_t panel, int lane, float* values);

}  // namespace pelton
