// Access to one output (lane) of one 32-input block of a panel, for packing and unpacking.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa/half.h"
#include "kernels/linear.h"

namespace pelton {

// 32 inputs of one output as a panel holds them; one or two groups.
struct StoredBlock {
    std::uint8_t codes[kBlockInputs];          // of 4 bits 16 bytes: code i below, code i + 16 above
    std::uint32_t scales[2], minimums[2];      // as many bytes of them as the layout keeps, the lowest
    std::uint16_t super_scale, super_minimum;  // float16
};

// The same as numbers.
struct BlockValues {
    std::uint8_t codes[kBlockInputs];
    float scales[2], minimums[2];
};

constexpr int scale_sets(const WeightLayout& layout) { return kBlockInputs / layout.group; }

constexpr int scale_bytes(const WeightLayout& layout) {
    return layout.super_scales ? 1 : layout.half_scales ? 2 : 4;
}

constexpr int set_bytes(const WeightLayout& layout) { return kPanelOutputs * scale_bytes(layout); }

// Of the scales and minimums of 32 inputs by 16 outputs.
constexpr std::int64_t all_sets_bytes(const WeightLayout& layout) {
    return set_bytes(layout) * scale_sets(layout) * (layout.has_minimum ? 2 : 1);
}

// Inputs of what a panel repeats.
constexpr std::int64_t block_inputs(const WeightLayout& layout) {
    return layout.super_scales ? kSuperBlocks * kBlockInputs : kBlockInputs;
}

// Bytes of that many inputs by 16 outputs.
constexpr std::int64_t panel_block_bytes(const WeightLayout& layout) {
    const std::int64_t bytes = layout.bits * 64 + all_sets_bytes(layout);
    return layout.super_scales ? kSuperBytes + kSuperBlocks * bytes : bytes;
}

// Where a panel holds what belongs to 32 inputs.
template <typename Byte>
struct BlockPlace {
    Byte *codes, *sets, *super;  // super: null without super scales
};

template <typename Byte>
BlockPlace<Byte> block_place(Byte* panel, std::int64_t index, const WeightLayout& layout) {
    if (!layout.super_scales) {
        Byte* block = panel + index * panel_block_bytes(layout);
        return {block, block + layout.bits * 64, nullptr};
    }
    Byte* super = panel + index / kSuperBlocks * panel_block_bytes(layout);
    Byte* sets = super + kSuperBytes;
    const std::int64_t part = index % kSuperBlocks;
    return {sets + kSuperBlocks * all_sets_bytes(layout) + part * layout.bits * 64,
            sets + part * all_sets_bytes(layout), super};
}

// What a layout without super scales keeps of a scale.
inline std::uint32_t stored_scale(const WeightLayout& layout, float value) {
    return layout.half_scales ? narrow_f16(value) : bits_of_float(value);
}

// super: the float16 that a one-byte scale is a multiple of.
inline float get_scale(const std::uint8_t* place, const WeightLayout& layout, const std::uint8_t* super) {
    std::uint16_t half;
    if (layout.super_scales) {
        std::int8_t whole;
        std::memcpy(&whole, place, 1);
        std::memcpy(&half, super, 2);
        return widen_f16(half) * static_cast<float>(whole);
    }
    if (layout.half_scales) {
        std::memcpy(&half, place, 2);
        return widen_f16(half);
    }
    float value;
    std::memcpy(&value, place, 4);
    return value;
}

// Where the layout is a constant, all branches are gone: packing a file is a few moves for each block.
inline void put_block(const BlockPlace<std::uint8_t>& place, int lane, const WeightLayout& layout,
                      const StoredBlock& stored) {
    const int num_vectors = layout.bits;  // of 64 bytes
    for (int j = 0; j < num_vectors; ++j)
        std::memcpy(place.codes + 64 * j + 4 * lane, stored.codes + 4 * j, 4);
    const int set = set_bytes(layout), sets = scale_sets(layout), bytes = scale_bytes(layout);
    std::uint8_t* own = place.sets + lane * bytes;
    const auto size = static_cast<std::size_t>(bytes);
    for (int s = 0; s < sets; ++s) {
        std::memcpy(own + s * set, &stored.scales[s], size);  // the lowest bytes: little-endian machines only
        if (layout.has_minimum) std::memcpy(own + (sets + s) * set, &stored.minimums[s], size);
    }
    if (!layout.super_scales) return;
    std::memcpy(place.super + 2 * lane, &stored.super_scale, 2);
    if (layout.has_minimum) std::memcpy(place.super + kSuperBytes / 2 + 2 * lane, &stored.super_minimum, 2);
}

// Scales and minimums come multiplied out.
inline void get_block(const BlockPlace<const std::uint8_t>& place, int lane, const WeightLayout& layout,
                      BlockValues& values) {
    std::uint8_t packed[kBlockInputs];
    for (int j = 0; j < layout.bits; ++j) std::memcpy(packed + 4 * j, place.codes + 64 * j + 4 * lane, 4);
    const int last = 4 * layout.bits - 1;  // of the packed bytes, 16 or 32
    for (int i = 0; i < kBlockInputs; ++i) {
        std::uint8_t code = packed[i & last];
        if (layout.bits == 4) code = i < 16 ? code & 15 : code >> 4;
        values.codes[i] = layout.has_table ? layout.table[code] : code;
    }
    const int set = set_bytes(layout), sets = scale_sets(layout);
    const std::uint8_t* own = place.sets + lane * scale_bytes(layout);
    const std::uint8_t* super = layout.super_scales ? place.super + 2 * lane : nullptr;
    const std::uint8_t* super_minimum = layout.super_scales ? super + kSuperBytes / 2 : nullptr;
    for (int s = 0; s < sets; ++s) {
        values.scales[s] = get_scale(own + s * set, layout, super);
        values.minimums[s] =
            layout.has_minimum ? get_scale(own + (sets + s) * set, layout, super_minimum) : 0.0f;
    }
}

}  // namespace pelton
