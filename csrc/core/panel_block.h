// Access to one output (lane) of one 32-input block of a panel, for packing and unpacking.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa/half.h"
#include "kernels/linear.h"

namespace pelton {

// 32 inputs of one output; one or two groups. To be packed with super scales, `scales` and `minimums` are the
// whole multiples of them.
struct BlockValues {
    std::uint8_t codes[kBlockInputs];
    float scales[2];
    float minimums[2];
    std::uint16_t super_scale, super_minimum;  // float16
};

inline int scale_sets(const WeightLayout& layout) { return kBlockInputs / layout.group; }

inline int scale_bytes(const WeightLayout& layout) {
    return layout.super_scales ? 1 : layout.half_scales ? 2 : 4;
}

inline int set_bytes(const WeightLayout& layout) { return kPanelOutputs * scale_bytes(layout); }

// Of the scales and minimums of 32 inputs by 16 outputs.
inline std::int64_t all_sets_bytes(const WeightLayout& layout) {
    return set_bytes(layout) * scale_sets(layout) * (layout.has_minimum ? 2 : 1);
}

// Inputs of what a panel repeats.
inline std::int64_t block_inputs(const WeightLayout& layout) {
    return layout.super_scales ? kSuperBlocks * kBlockInputs : kBlockInputs;
}

// Bytes of that many inputs by 16 outputs.
inline std::int64_t panel_block_bytes(const WeightLayout& layout) {
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

inline void put_scale(std::uint8_t* place, const WeightLayout& layout, float value) {
    if (layout.super_scales) {
        const auto whole = static_cast<std::int8_t>(value);
        std::memcpy(place, &whole, 1);
    } else if (layout.half_scales) {
        const std::uint16_t half = narrow_f16(value);
        std::memcpy(place, &half, 2);
    } else {
        std::memcpy(place, &value, 4);
    }
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

inline void put_block(const BlockPlace<std::uint8_t>& place, int lane, const WeightLayout& layout,
                      const BlockValues& values) {
    std::uint8_t packed[kBlockInputs];
    const int num_vectors = layout.bits;  // of 64 bytes
    if (layout.bits == 4) {
        for (int i = 0; i < 16; ++i)
            packed[i] = static_cast<std::uint8_t>((values.codes[i] & 15) | (values.codes[i + 16] << 4));
    } else {
        std::memcpy(packed, values.codes, kBlockInputs);
    }
    for (int j = 0; j < num_vectors; ++j) std::memcpy(place.codes + 64 * j + 4 * lane, packed + 4 * j, 4);
    const int set = set_bytes(layout), sets = scale_sets(layout);
    std::uint8_t* own = place.sets + lane * scale_bytes(layout);
    for (int s = 0; s < sets; ++s) {
        put_scale(own + s * set, layout, values.scales[s]);
        if (layout.has_minimum) put_scale(own + (sets + s) * set, layout, values.minimums[s]);
    }
    if (!layout.super_scales) return;
    std::memcpy(place.super + 2 * lane, &values.super_scale, 2);
    if (layout.has_minimum) std::memcpy(place.super + kSuperBytes / 2 + 2 * lane, &values.super_minimum, 2);
}

// Scales and minimums come multiplied out.
inline void get_block(const BlockPlace<const std::uint8_t>& place, int lane, const WeightLayout& layout,
                      BlockValues& values) {
    std::uint8_t packed[kBlockInputs];
    for (int j = 0; j < layout.bits; ++j) std::memcpy(packed + 4 * j, place.codes + 64 * j + 4 * lane, 4);
    for (int i = 0; i < kBlockInputs; ++i) {
        std::uint8_t code = packed[i % (4 * layout.bits)];
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
