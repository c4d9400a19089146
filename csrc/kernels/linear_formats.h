// The formats of block-quantized panels: how codes, scales and minimums of a block are read, and which
// instance of a loop a weight's layout picks.
//
// For each 32 inputs, in rising order, with isum the exact sum of (code - offset) * q:
//     acc = fma(isum, scale * d, acc);  with minimums: acc = fma(minimum, d * sum of q, acc)
// and the same per 16 inputs where the weight's groups are 16 or the activations are fine.
// Every loop does exactly this per row; a tile only shares the unpacked codes between its rows.
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"

namespace pelton::PELTON_ISA {

enum class Scales { kFloat, kHalf, kSuper };

template <int kBitsOfCode, bool kWithTable, int kGroupInputs, Scales kHeld, bool kWithMinimum, bool kFine>
struct BlockFormat {
    static constexpr int kBits = kBitsOfCode;
    static constexpr bool kTable = kWithTable;
    static constexpr Scales kScales = kHeld;
    static constexpr bool kMinimum = kWithMinimum;
    static constexpr int kSets = kBlockInputs / kGroupInputs;
    static constexpr int kSums = kFine ? 2 : kSets;  // integer sums of a block
    static constexpr int kCodeBytes = kBits * 64;
    static constexpr int kScaleBytes = kHeld == Scales::kFloat ? 4 : kHeld == Scales::kHalf ? 2 : 1;
    static constexpr int kSetBytes = kPanelOutputs * kScaleBytes;
    static constexpr int kAllSetsBytes = kSets * kSetBytes * (kMinimum ? 2 : 1);
    static constexpr bool kNarrow = kBits == 4 && !kTable;
};

// What a whole call shares.
template <class F>
struct BlockConstants {
    u8x64 table;
    i32x16 offset_pairs[F::kSums];  // int16 pairs that take -offset times the sums of each half
};

template <class F>
PELTON_INLINE BlockConstants<F> block_constants(const WeightLayout& layout) {
    BlockConstants<F> c;
    c.table = load_table(layout.table);
    const uint32_t low = static_cast<uint16_t>(-layout.offset), high = low << 16;
    if constexpr (F::kSums == 1) {
        c.offset_pairs[0] = set1_i32(static_cast<int32_t>(low | high));
    } else {
        c.offset_pairs[0] = set1_i32(static_cast<int32_t>(low));
        c.offset_pairs[1] = set1_i32(static_cast<int32_t>(high));
    }
    return c;
}

// The codes of four inputs of every output: step j of a half of the block.
template <class F>
PELTON_INLINE u8x64 codes_of_step(const uint8_t* block, const BlockConstants<F>& c, int half, int j) {
    if constexpr (F::kBits == 8) return load_u8x64(block + 64 * (4 * half + j));
    const u8x64 packed = load_u8x64(block + 64 * j);
    const u8x64 codes = half == 0 ? low_nibbles(packed) : high_nibbles(packed);
    if constexpr (F::kTable) return lookup(c.table, codes);
    return codes;
}

template <class F>
PELTON_INLINE f32x16 load_scales(const uint8_t* set, f32x16 super) {
    if constexpr (F::kScales == Scales::kFloat) return load(reinterpret_cast<const float*>(set));
    if constexpr (F::kScales == Scales::kHalf) return load_f16(reinterpret_cast<const uint16_t*>(set));
    return super * load_i8(reinterpret_cast<const int8_t*>(set));
}

// Super scales and minimums of a panel, widened.
struct SuperScales {
    f32x16 scale, minimum;
};

// Where the first of a tile's panels has what belongs to a block; `super` [panels] if the format has it.
struct BlockPlace {
    const uint8_t *codes, *sets;
    const SuperScales* super;
};

// Where block `index` of panels lies, whatever the format.
template <class F, int kPanels>
PELTON_INLINE BlockPlace place_of_block(const uint8_t* panel, int64_t panel_bytes, int64_t index,
                                        SuperScales (&super)[kPanels]) {
    if constexpr (F::kScales == Scales::kSuper) {
        constexpr int kHeadBytes = kSuperBytes + kSuperBlocks * F::kAllSetsBytes;
        const int64_t part = index % kSuperBlocks;
        const uint8_t* head = panel + index / kSuperBlocks * (kHeadBytes + kSuperBlocks * F::kCodeBytes);
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
            const auto* halves = reinterpret_cast<const uint16_t*>(head + p * panel_bytes);
            super[p] = {load_f16(halves), load_f16(halves + kPanelOutputs)};
        }
        return {head + kHeadBytes + part * F::kCodeBytes, head + kSuperBytes + part * F::kAllSetsBytes,
                super};
    } else {
        const uint8_t* block = panel + index * (F::kCodeBytes + F::kAllSetsBytes);
        return {block, block + F::kCodeBytes, nullptr};
    }
}

template <class F>
struct BlockScales {
    f32x16 scales[F::kSets], minimums[F::kSets];
    BlockScales() = default;
    PELTON_INLINE BlockScales(const BlockPlace& place, int panel, int64_t panel_bytes) {
        f32x16 scale = set1(0.0f), minimum = scale;
        if constexpr (F::kScales == Scales::kSuper) {
            scale = place.super[panel].scale;
            minimum = place.super[panel].minimum;
        }
        const uint8_t* set = place.sets + panel * panel_bytes;
        PELTON_UNROLL for (int s = 0; s < F::kSets; ++s) {
            scales[s] = load_scales<F>(set + s * F::kSetBytes, scale);
            if constexpr (F::kMinimum)
                minimums[s] = load_scales<F>(set + (F::kSets + s) * F::kSetBytes, minimum);
        }
    }
};

// Of panels side by side.
template <class F, int kPanels>
struct TileScales {
    BlockScales<F> of[kPanels];
    // What a row's integer sum `s` is multiplied by.
    PELTON_INLINE f32x16 scaled(int p, const ActivationBlock& x, int s) const {
        return of[p].scales[s % F::kSets] * set1(x.scales[s]);
    }
    PELTON_INLINE f32x16 minimum(int p, int s) const { return of[p].minimums[s]; }
};

template <class F, int kPanels>
PELTON_INLINE TileScales<F, kPanels> tile_scales(const BlockPlace& place, int64_t panel_bytes) {
    TileScales<F, kPanels> scales;
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) scales.of[p] = BlockScales<F>(place, p, panel_bytes);
    return scales;
}

// The formats with super scales: Q4_K, Q5_K (minimums, groups of 32) and Q6_K (8 bits, groups of 16).
template <int kBits, bool kTable, int kGroup>
constexpr bool super_scales_known(bool has_minimum) {
    return !kTable && (kGroup == 32 ? has_minimum : !has_minimum && kBits == 8);
}

template <class Loop, int kBits, bool kTable, int kGroup, bool kFine, bool kMinimum>
PELTON_INLINE void block_dispatch_minimum(const LinearCall& call, const LinearRange& range) {
    if constexpr (super_scales_known<kBits, kTable, kGroup>(kMinimum))
        if (call.weight.layout.super_scales)
            return Loop::template run<BlockFormat<kBits, kTable, kGroup, Scales::kSuper, kMinimum, kFine>>(
                call, range);
    if constexpr (kGroup == 32)
        if (call.weight.layout.half_scales)
            return Loop::template run<BlockFormat<kBits, kTable, kGroup, Scales::kHalf, kMinimum, kFine>>(
                call, range);
    Loop::template run<BlockFormat<kBits, kTable, kGroup, Scales::kFloat, kMinimum, kFine>>(call, range);
}

template <class Loop, int kBits, bool kTable, int kGroup, bool kFine>
PELTON_INLINE void block_dispatch_scales(const LinearCall& call, const LinearRange& range) {
    if constexpr (!kTable)
        if (call.weight.layout.has_minimum)
            return block_dispatch_minimum<Loop, kBits, kTable, kGroup, kFine, true>(call, range);
    return block_dispatch_minimum<Loop, kBits, kTable, kGroup, kFine, false>(call, range);
}

// Runs Loop::run<F> for the format F of the layout's group, scale type and minimum. Groups of 16 take fine
// blocks as they are. What no format of files has is not compiled (it took a quarter of the build), and
// check_layout refuses it: groups of 16 with float16 scales, tables with minimums.
template <class Loop, int kBits, bool kTable>
PELTON_INLINE void block_dispatch(const LinearCall& call, const LinearRange& range) {
    if (call.weight.layout.group != 32)
        return block_dispatch_scales<Loop, kBits, kTable, 16, false>(call, range);
    if (call.fine) return block_dispatch_scales<Loop, kBits, kTable, 32, true>(call, range);
    return block_dispatch_scales<Loop, kBits, kTable, 32, false>(call, range);
}

}  // namespace pelton::PELTON_ISA
