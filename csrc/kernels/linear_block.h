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

template <int kBitsOfCode, bool kWithTable, int kGroupInputs, bool kHalf, bool kWithMinimum, bool kFine>
struct BlockFormat {
    static constexpr int kBits = kBitsOfCode;
    static constexpr bool kTable = kWithTable;
    static constexpr bool kHalfScales = kHalf;
    static constexpr bool kMinimum = kWithMinimum;
    static constexpr int kSets = kBlockInputs / kGroupInputs;
    static constexpr int kSums = kFine ? 2 : kSets;  // integer sums of a block
    static constexpr int kCodeBytes = kBits * 64;
    static constexpr int kSetBytes = kPanelOutputs * (kHalf ? 2 : 4);
    static constexpr int kBytes = kCodeBytes + kSets * kSetBytes * (kMinimum ? 2 : 1);
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

template <class F>
PELTON_INLINE void unpack_codes(const uint8_t* block, const BlockConstants<F>& c, u8x64 (&codes)[8]) {
    if constexpr (F::kBits == 8) {
        PELTON_UNROLL for (int j = 0; j < 8; ++j) codes[j] = load_u8x64(block + 64 * j);
    } else {
        PELTON_UNROLL for (int j = 0; j < 4; ++j) {
            const u8x64 packed = load_u8x64(block + 64 * j);
            codes[j] = low_nibbles(packed);
            codes[j + 4] = high_nibbles(packed);
            if constexpr (F::kTable) {
                codes[j] = lookup(c.table, codes[j]);
                codes[j + 4] = lookup(c.table, codes[j + 4]);
            }
        }
    }
}

template <class F>
PELTON_INLINE f32x16 load_scales(const uint8_t* scales) {
    if constexpr (F::kHalfScales) return load_f16(reinterpret_cast<const uint16_t*>(scales));
    return load(reinterpret_cast<const float*>(scales));
}

// One row's share of a block, once its integer sums are known.
template <class F>
PELTON_INLINE void add_block(const ActivationBlock& x, const DotSum<F::kNarrow> (&sums)[F::kSums],
                             const BlockConstants<F>& c, const f32x16 (&scales)[F::kSets],
                             const f32x16 (&minimums)[F::kSets], f32x16& acc) {
    PELTON_UNROLL for (int s = 0; s < F::kSums; ++s) {
        i32x16 total = sums[s].total();
        if constexpr (!F::kMinimum) total = add_pair_products(total, c.offset_pairs[s], x.half_sums);
        acc = fma(to_f32(total), scales[s % F::kSets] * set1(x.scales[s]), acc);
        if constexpr (F::kMinimum && F::kSets == 2)
            acc = fma(minimums[s], set1(x.scales[s] * static_cast<float>(x.half_sums[s])), acc);
    }
    if constexpr (F::kMinimum && F::kSets == 1) acc = fma(minimums[0], set1(x.scaled_sum), acc);
}

// Adds one block of 32 inputs to kRows rows; row r reads x[r * row_blocks].
template <class F, int kRows>
PELTON_INLINE void block_step(const uint8_t* block, const ActivationBlock* x, int64_t row_blocks,
                              const BlockConstants<F>& c, f32x16 (&acc)[kRows]) {
    // Rows whose dot products interleave, to hide latency.
    constexpr int kTogether = kRows % 4 == 0 ? 4 : kRows == 6 ? 3 : kRows;
    static_assert(kRows % kTogether == 0);
    u8x64 codes[8];
    unpack_codes<F>(block, c, codes);
    f32x16 scales[F::kSets], minimums[F::kSets];
    PELTON_UNROLL for (int s = 0; s < F::kSets; ++s) {
        const uint8_t* set = block + F::kCodeBytes + s * F::kSetBytes;
        scales[s] = load_scales<F>(set);
        if constexpr (F::kMinimum) minimums[s] = load_scales<F>(set + F::kSets * F::kSetBytes);
    }
    PELTON_UNROLL for (int first = 0; first < kRows; first += kTogether) {
        const ActivationBlock* rows[kTogether];
        DotSum<F::kNarrow> sums[kTogether][F::kSums];
        PELTON_UNROLL for (int r = 0; r < kTogether; ++r) {
            rows[r] = x;
            x += row_blocks;
            PELTON_UNROLL for (int s = 0; s < F::kSums; ++s) sums[r][s] = DotSum<F::kNarrow>::zero();
        }
        PELTON_UNROLL for (int j = 0; j < 8; ++j) PELTON_UNROLL for (int r = 0; r < kTogether; ++r)
            sums[r][j * F::kSums / 8]
                .step(codes[j], rows[r]->codes + 4 * j);
        PELTON_UNROLL for (int r = 0; r < kTogether; ++r)
            add_block<F>(*rows[r], sums[r], c, scales, minimums, acc[first + r]);
    }
}

// Up to 12 rows on AVX-512: 12 sums + 8 code vectors + 4 dot products + scale, minimum of 32 registers. Up to
// 4 elsewhere.
template <class F, int kRows>
void block_tile(const LinearCall& call, int64_t panel, int64_t row) {
    const int64_t num_blocks = call.weight.inputs / kBlockInputs;
    const uint8_t* block = call.weight.data + panel * call.weight.panel_bytes;
    const ActivationBlock* x = call.blocks + row * num_blocks;
    const BlockConstants<F> constants = block_constants<F>(call.weight.layout);
    f32x16 acc[kRows];
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) acc[r] = set1(0.0f);
    // Few rows use a block up sooner than one does with its dependent sums; against 4096 for all, 1 row gains
    // 2 %, 4 rows 7 %, 8 rows 8 %.
    const int64_t ahead = call.ahead != 0 ? call.ahead : kRows > 1 && kRows <= 8 ? 8192 : 6144;
    for (int64_t i = 0; i < num_blocks; ++i) {
        // Measured: one row then reads at the memory's speed, and sixteen rows take 0.4 of the time. One row
        // reads past the caches: what Python needs between two steps stays there (110 -> 60 us a step).
        PELTON_UNROLL for (int line = 0; line < F::kBytes; line += 64)
            __builtin_prefetch(block + line + ahead, 0, kRows == 1 ? 0 : 3);
        block_step<F, kRows>(block, x, num_blocks, constants, acc);
        block += F::kBytes;
        x += 1;
    }
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) finish_row(call, panel, row + r, acc[r]);
}

#if defined(PELTON_ISA_avx512)
template <class F>
PELTON_INLINE void rows_tile(const LinearCall& call, int64_t panel, int64_t row, int64_t rows) {
    switch (rows) {
        case 12:
            return block_tile<F, 12>(call, panel, row);
        case 8:
            return block_tile<F, 8>(call, panel, row);
        case 7:
            return block_tile<F, 7>(call, panel, row);
        case 6:
            return block_tile<F, 6>(call, panel, row);
        case 5:
            return block_tile<F, 5>(call, panel, row);
        case 4:
            return block_tile<F, 4>(call, panel, row);
        case 3:
            return block_tile<F, 3>(call, panel, row);
        case 2:
            return block_tile<F, 2>(call, panel, row);
        default:
            return block_tile<F, 1>(call, panel, row);
    }
}

// The tile for the next of `left` rows. Small tiles share less, so what twelve leave over is cut evenly: 13
// rows run as 8 and 5. Measured against 4, 2 and 1 for the rest: 7 rows take 0.77 of the time, 5 rows 0.83.
PELTON_INLINE int64_t next_tile(int64_t left) {
    if (left >= 16 || left == 12) return 12;
    if (left >= 12 || left == 8) return 8;
    return left > 8 ? (left + 1) / 2 : left;
}

template <class F>
PELTON_INLINE void block_panel(const LinearCall& call, int64_t panel, int64_t row, int64_t end) {
    while (row < end) {
        const int64_t rows = next_tile(end - row);
        rows_tile<F>(call, panel, row, rows);
        row += rows;
    }
}
#else
template <class F>
PELTON_INLINE void block_panel(const LinearCall& call, int64_t panel, int64_t row, int64_t end) {
    for (; end - row >= 4; row += 4) block_tile<F, 4>(call, panel, row);
    if (end - row == 3) return block_tile<F, 3>(call, panel, row);
    if (end - row == 2) return block_tile<F, 2>(call, panel, row);
    if (end - row == 1) return block_tile<F, 1>(call, panel, row);
}
#endif

template <class F>
void block_linear(const LinearCall& call, const LinearRange& range) {
    for (int64_t row = range.row_begin; row < range.row_end; row += kChunkRows) {
        const int64_t end = row + kChunkRows < range.row_end ? row + kChunkRows : range.row_end;
        for (int64_t panel = range.panel_begin; panel < range.panel_end; ++panel)
            block_panel<F>(call, panel, row, end);
    }
}

template <int kBits, bool kTable, int kGroup, bool kFine>
PELTON_INLINE void block_dispatch_scales(const LinearCall& call, const LinearRange& range) {
    const WeightLayout& layout = call.weight.layout;
    if (layout.half_scales) {
        if (layout.has_minimum)
            return block_linear<BlockFormat<kBits, kTable, kGroup, true, true, kFine>>(call, range);
        return block_linear<BlockFormat<kBits, kTable, kGroup, true, false, kFine>>(call, range);
    }
    if (layout.has_minimum)
        return block_linear<BlockFormat<kBits, kTable, kGroup, false, true, kFine>>(call, range);
    return block_linear<BlockFormat<kBits, kTable, kGroup, false, false, kFine>>(call, range);
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
