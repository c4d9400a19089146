// Access to one output (lane) of one 32-input block of a panel, for packing and unpacking.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa/half.h"
#include "kernels/linear.h"

namespace pelton {

// 32 inputs of one output; one or two groups.
struct BlockValues {
    std::uint8_t codes[kBlockInputs];
    float scales[2];
    float minimums[2];
};

inline int scale_sets(const WeightLayout& layout) { return kBlockInputs / layout.group; }

// Bytes of 32 inputs by 16 outputs.
inline std::int64_t panel_block_bytes(const WeightLayout& layout) {
    const int scale_bytes = layout.half_scales ? 2 : 4;
    return layout.bits * 64 + kPanelOutputs * scale_bytes * scale_sets(layout) * (layout.has_minimum ? 2 : 1);
}

inline void put_scale(std::uint8_t* place, const WeightLayout& layout, float value) {
    if (!layout.half_scales) {
        std::memcpy(place, &value, 4);
        return;
    }
    const std::uint16_t half = narrow_f16(value);
    std::memcpy(place, &half, 2);
}

inline float get_scale(const std::uint8_t* place, const WeightLayout& layout) {
    float value;
    if (!layout.half_scales) {
        std::memcpy(&value, place, 4);
        return value;
    }
    std::uint16_t half;
    std::memcpy(&half, place, 2);
    return widen_f16(half);
}

inline void put_block(std::uint8_t* block, int lane, const WeightLayout& layout, const BlockValues& values) {
    std::uint8_t packed[kBlockInputs];
    const int num_vectors = layout.bits;  // of 64 bytes
    if (layout.bits == 4) {
        for (int i = 0; i < 16; ++i)
            packed[i] = static_cast<std::uint8_t>((values.codes[i] & 15) | (values.codes[i + 16] << 4));
    } else {
        std::memcpy(packed, values.codes, kBlockInputs);
    }
    for (int j = 0; j < num_vectors; ++j) std::memcpy(block + 64 * j + 4 * lane, packed + 4 * j, 4);
    const int scale_bytes = layout.half_scales ? 2 : 4, sets = scale_sets(layout);
    std::uint8_t* place = block + layout.bits * 64 + lane * scale_bytes;
    for (int s = 0; s < sets; ++s) {
        put_scale(place + s * 16 * scale_bytes, layout, values.scales[s]);
        if (layout.has_minimum) put_scale(place + (sets + s) * 16 * scale_bytes, layout, values.minimums[s]);
    }
}

inline void get_block(const std::uint8_t* block, int lane, const WeightLayout& layout, BlockValues& values) {
    std::uint8_t packed[kBlockInputs];
    for (int j = 0; j < layout.bits; ++j) std::memcpy(packed + 4 * j, block + 64 * j + 4 * lane, 4);
    for (int i = 0; i < kBlockInputs; ++i) {
        std::uint8_t code = packed[i % (4 * layout.bits)];
        if (layout.bits == 4) code = i < 16 ? code & 15 : code >> 4;
        values.codes[i] = layout.has_table ? layout.table[code] : code;
    }
    const int scale_bytes = layout.half_scales ? 2 : 4, sets = scale_sets(layout);
    const std::uint8_t* place = block + layout.bits * 64 + lane * scale_bytes;
    for (int s = 0; s < sets; ++s) {
        values.scales[s] = get_scale(place + s * 16 * scale_bytes, layout);
        values.minimums[s] =
            layout.has_minimum ? get_scale(place + (sets + s) * 16 * scale_bytes, layout) : 0.0f;
    }
}

}  // namespace pelton
