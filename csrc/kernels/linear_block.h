// Products with block-quantized panels: int8 activations, exact integer sums within a group, float between
// groups.
//
// For each 32 inputs, in rising order, with isum the exact sum of (code - offset) * q:
//     acc = fma(isum, scale * d, acc);  with minimums: acc = fma(minimum, d * sum of q, acc)
// and the same per 16 inputs where the weight's groups are 16 or the activations are fine.
// Every tile does exactly this per row; a tile only shares the unpacked codes between its rows.
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"
#include "kernels/linear_finish.h"

namespace pelton::PELTON_ISA {

// Rows whose activations stay in the second-level cache while the panels pass by.
constexpr int64_t kChunkRows = 96;

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

template <class F>
struct BlockScales {
    f32x16 scales[F::kSets], minimums[F::kSets];
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

// What a row's sum `s` begins with, for all panels alike: the offset's share, which takes a multiplication
// less in each panel than at the end.
template <class F>
PELTON_INLINE i32x16 start_of_sum(const ActivationBlock& x, int s, const BlockConstants<F>& c) {
    const i32x16 zero = set1_i32(0);
    if constexpr (F::kMinimum || !DotSum<F::kNarrow>::kTakesStart) return zero;
    return add_pair_products(zero, c.offset_pairs[s], x.half_sums);
}

// One row's share of a block's sum `s`, once it is known.
template <class F>
PELTON_INLINE void add_sum(const ActivationBlock& x, i32x16 total, int s, const BlockConstants<F>& c,
                           const BlockScales<F>& by, f32x16& acc) {
    if constexpr (!F::kMinimum && !DotSum<F::kNarrow>::kTakesStart)
        total = add_pair_products(total, c.offset_pairs[s], x.half_sums);
    acc = fma(to_f32(total), by.scales[s % F::kSets] * set1(x.scales[s]), acc);
    if constexpr (F::kMinimum && F::kSets == 2)
        acc = fma(by.minimums[s], set1(x.scales[s] * static_cast<float>(x.half_sums[s])), acc);
    if constexpr (F::kMinimum && F::kSets == 1)
        if (s == F::kSums - 1) acc = fma(by.minimums[0], set1(x.scaled_sum), acc);
}

// What a step adds to: kPanels panels side by side, kRows rows.
template <int kRows, int kPanels>
using TileSums = f32x16[kPanels][kRows];

// Adds one block of 32 inputs of kPanels panels to kRows rows; row r reads x[r * row_blocks]. All rows take a
// step of four inputs before the next one, so that there are as many independent dot products as sums: their
// latency is 4 cycles and two can start in each. Two panels share each load of a row's codes, which is what
// else would limit: two loads a cycle. Measured against 12 rows of one panel: 355 instead of 335 G/s.
template <class F, int kRows, int kPanels>
PELTON_INLINE void block_step(const BlockPlace& place, int64_t panel_bytes, const ActivationBlock* x,
                              int64_t row_blocks, const BlockConstants<F>& c, TileSums<kRows, kPanels>& acc) {
    DotSum<F::kNarrow> sums[kPanels][kRows];
    PELTON_UNROLL for (int half = 0; half < 2; ++half) {
        if (half == 0 || F::kSums == 2) PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
                const i32x16 start = start_of_sum<F>(x[r * row_blocks], F::kSums == 2 ? half : 0, c);
                PELTON_UNROLL for (int p = 0; p < kPanels; ++p) sums[p][r] = DotSum<F::kNarrow>::from(start);
            }
        PELTON_UNROLL for (int j = 0; j < 4; ++j) {
            u8x64 codes[kPanels];
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) codes[p] =
                codes_of_step<F>(place.codes + p * panel_bytes, c, half, j);
            PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
                sums[p][r]
                    .step(codes[p], x[r * row_blocks].codes + 4 * (4 * half + j));
        }
        if (half == 0 && F::kSums == 1) continue;
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
            const BlockScales<F> scales(place, p, panel_bytes);
            PELTON_UNROLL for (int r = 0; r < kRows; ++r) add_sum<F>(
                x[r * row_blocks], sums[p][r].total(), F::kSums == 2 ? half : 0, c, scales, acc[p][r]);
        }
    }
}

// Measured: one row then reads at the memory's speed, and sixteen rows take 0.4 of the time. One row reads
// past the caches: what Python needs between two steps stays there (110 -> 60 us a step). What follows the
// panels of a tile, whose first ends at `end`, is as many panels on.
template <int kRows, int kPanels, int kBytes>
PELTON_INLINE void prefetch_panels(const uint8_t* from, const uint8_t* end, int64_t panel_bytes) {
    from += from < end ? 0 : (kPanels - 1) * panel_bytes;
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
        PELTON_UNROLL for (int line = 0; line < kBytes; line += 64)
            __builtin_prefetch(from + p * panel_bytes + line, 0, kRows == 1 ? 0 : 3);
}

// The panels that come next, while several tiles of rows read the same ones: each block of each tile asks for
// `step` bytes of every panel, so that memory works as long as the multipliers do. Measured against asking a
// few kilobytes ahead, which leaves all of it to the first tile: 48 rows gain 6 %.
struct NextPanels {
    const uint8_t* at;
    int64_t step;  // 0: there is one tile only

    template <int kPanels>
    PELTON_INLINE void prefetch(int64_t panel_bytes) {
        const uint8_t* const end = at + step;
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) for (const uint8_t* line = at; line < end; line += 64)
            __builtin_prefetch(line + p * panel_bytes);
        at = end;
    }
};

template <class F, int kRows, int kPanels>
void block_tile(const LinearCall& call, int64_t panel, int64_t row, NextPanels next) {
    const int64_t num_blocks = call.weight.inputs / kBlockInputs, panel_bytes = call.weight.panel_bytes;
    const uint8_t* block = call.weight.data + panel * panel_bytes;
    const ActivationBlock* x = call.blocks + row * num_blocks;
    const BlockConstants<F> constants = block_constants<F>(call.weight.layout);
    TileSums<kRows, kPanels> acc;
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r) acc[p][r] =
        set1(0.0f);
    // Few rows use a block up sooner than one does with its dependent sums; against 4096 for all, 1 row gains
    // 2 %, 4 rows 7 %, 8 rows 8 %.
    const int64_t ahead = (call.ahead != 0 ? call.ahead : kRows > 1 ? 8192 : 6144) / kPanels;
    const uint8_t* const end = block + panel_bytes;
    if constexpr (F::kScales == Scales::kSuper) {
        constexpr int kHeadBytes = kSuperBytes + kSuperBlocks * F::kAllSetsBytes;
        for (int64_t i = 0; i < num_blocks; i += kSuperBlocks) {
            if (next.step == 0) prefetch_panels<kRows, kPanels, kHeadBytes>(block + ahead, end, panel_bytes);
            SuperScales super[kPanels];
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
                const auto* halves = reinterpret_cast<const uint16_t*>(block + p * panel_bytes);
                super[p] = {load_f16(halves), load_f16(halves + kPanelOutputs)};
            }
            BlockPlace place{block + kHeadBytes, block + kSuperBytes, super};
            for (int part = 0; part < kSuperBlocks; ++part) {
                if (next.step == 0)
                    prefetch_panels<kRows, kPanels, F::kCodeBytes>(place.codes + ahead, end, panel_bytes);
                else
                    next.prefetch<kPanels>(panel_bytes);
                block_step<F, kRows, kPanels>(place, panel_bytes, x, num_blocks, constants, acc);
                place.codes += F::kCodeBytes;
                place.sets += F::kAllSetsBytes;
                x += 1;
            }
            block = place.codes;
        }
    } else {
        constexpr int kBytes = F::kCodeBytes + F::kAllSetsBytes;
        for (int64_t i = 0; i < num_blocks; ++i) {
            if (next.step == 0)
                prefetch_panels<kRows, kPanels, kBytes>(block + ahead, end, panel_bytes);
            else
                next.prefetch<kPanels>(panel_bytes);
            const BlockPlace place{block, block + F::kCodeBytes, nullptr};
            block_step<F, kRows, kPanels>(place, panel_bytes, x, num_blocks, constants, acc);
            block += kBytes;
            x += 1;
        }
    }
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r)
        finish_row(call, panel + p, row + r, acc[p][r]);
}

// Panels side by side in a tile, and the most rows. On AVX-512 12 sums, 12 dot products, 2 codes, a
// broadcast, scale and minimum of 32 registers.
#if defined(PELTON_ISA_avx512)
constexpr int kTilePanels = 2, kTileRows = 6;
#else
constexpr int kTilePanels = 1, kTileRows = 4;
#endif

// Small tiles share less, so what full ones leave over is cut evenly: 8 rows run as 4 and 4.
PELTON_INLINE int64_t next_tile(int64_t left) {
    if (left <= kTileRows) return left;
    return left < 2 * kTileRows ? (left + 1) / 2 : kTileRows;
}

template <class F, int kPanels>
PELTON_INLINE void block_panel(const LinearCall& call, int64_t panel, const uint8_t* then, int64_t row,
                               int64_t end) {
    const int64_t num_blocks = call.weight.inputs / kBlockInputs, panel_bytes = call.weight.panel_bytes;
    const int64_t tiles = (end - row + kTileRows - 1) / kTileRows, steps = tiles * num_blocks;
    NextPanels next{then, tiles > 1 ? (panel_bytes + steps - 1) / steps : 0};
    while (row < end) {
        const int64_t rows = next_tile(end - row);
        switch (rows) {
            case 1:
                block_tile<F, 1, kPanels>(call, panel, row, next);
                break;
            case 2:
                block_tile<F, 2, kPanels>(call, panel, row, next);
                break;
            case 3:
                block_tile<F, 3, kPanels>(call, panel, row, next);
                break;
            case 4:
                block_tile<F, 4, kPanels>(call, panel, row, next);
                break;
            default:
                if constexpr (kTileRows > 4) {
                    if (rows == 5) block_tile<F, 5, kPanels>(call, panel, row, next);
                    if (rows == 6) block_tile<F, 6, kPanels>(call, panel, row, next);
                }
        }
        row += rows;
        next.at += num_blocks * next.step;
    }
}

template <class F>
void block_linear(const LinearCall& call, const LinearRange& range) {
    for (int64_t row = range.row_begin; row < range.row_end; row += kChunkRows) {
        const int64_t end = row + kChunkRows < range.row_end ? row + kChunkRows : range.row_end;
        // After the last panels come the first again, for the next rows, or what the caller reads then.
        const auto after = [&](int64_t panel) {
            if (panel >= range.panel_end && end == range.row_end && call.then != nullptr) return call.then;
            const int64_t next = panel < range.panel_end ? panel : range.panel_begin;
            return call.weight.data + next * call.weight.panel_bytes;
        };
        int64_t panel = range.panel_begin;
        for (; range.panel_end - panel >= kTilePanels; panel += kTilePanels)
            block_panel<F, kTilePanels>(call, panel, after(panel + kTilePanels), row, end);
        for (; panel < range.panel_end; ++panel) block_panel<F, 1>(call, panel, after(panel + 1), row, end);
    }
    finish_call(call);
}

// The formats with super scales: Q4_K, Q5_K (minimums, groups of 32) and Q6_K (8 bits, groups of 16).
template <int kBits, bool kTable, int kGroup>
constexpr bool super_scales_known(bool has_minimum) {
    return !kTable && (kGroup == 32 ? has_minimum : !has_minimum && kBits == 8);
}

template <int kBits, bool kTable, int kGroup, bool kFine, bool kMinimum>
PELTON_INLINE void block_dispatch_minimum(const LinearCall& call, const LinearRange& range) {
    if constexpr (super_scales_known<kBits, kTable, kGroup>(kMinimum))
        if (call.weight.layout.super_scales)
            return block_linear<BlockFormat<kBits, kTable, kGroup, Scales::kSuper, kMinimum, kFine>>(call,
                                                                                                     range);
    if (call.weight.layout.half_scales)
        return block_linear<BlockFormat<kBits, kTable, kGroup, Scales::kHalf, kMinimum, kFine>>(call, range);
    return block_linear<BlockFormat<kBits, kTable, kGroup, Scales::kFloat, kMinimum, kFine>>(call, range);
}

template <int kBits, bool kTable, int kGroup, bool kFine>
PELTON_INLINE void block_dispatch_scales(const LinearCall& call, const LinearRange& range) {
    if (call.weight.layout.has_minimum)
        return block_dispatch_minimum<kBits, kTable, kGroup, kFine, true>(call, range);
    return block_dispatch_minimum<kBits, kTable, kGroup, kFine, false>(call, range);
}

// Picks the instance by the layout's group, scale type and minimum. Groups of 16 take fine blocks as they
// are.
template <int kBits, bool kTable>
PELTON_INLINE void block_dispatch(const LinearCall& call, const LinearRange& range) {
    if (call.weight.layout.group != 32) return block_dispatch_scales<kBits, kTable, 16, false>(call, range);
    if (call.fine) return block_dispatch_scales<kBits, kTable, 32, true>(call, range);
    return block_dispatch_scales<kBits, kTable, 32, false>(call, range);
}

}  // namespace pelton::PELTON_ISA
