// What the loops over block-quantized panels share: a block's step of a tile of rows, and what is asked for
// ahead.
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"
#include "kernels/linear_finish.h"
#include "kernels/linear_formats.h"

namespace pelton::PELTON_ISA {

// Rows whose activations stay in the second-level cache while the panels pass by.
constexpr int64_t kChunkRows = 96;
// Rows that memory limits more than multiplying does.
constexpr int64_t kFewRows = 8;

// What a row's sum `s` begins with, for all panels alike: the offset's share, which takes a multiplication
// less in each panel than at the end.
template <class F>
PELTON_INLINE i32x16 start_of_sum(const ActivationBlock& x, int s, const BlockConstants<F>& c) {
    const i32x16 zero = set1_i32(0);
    if constexpr (F::kMinimum || !DotSum<F::kNarrow>::kTakesStart) return zero;
    return add_pair_products(zero, c.offset_pairs[s], x.half_sums);
}

// One row's share of a block's sum `s`, once it is known.
template <class F, class Scales>
PELTON_INLINE void add_sum(const ActivationBlock& x, i32x16 total, int s, const BlockConstants<F>& c,
                           const Scales& by, int p, f32x16& acc) {
    if constexpr (!F::kMinimum && !DotSum<F::kNarrow>::kTakesStart)
        total = add_pair_products(total, c.offset_pairs[s], x.half_sums);
    acc = fma(to_f32(total), by.scaled(p, x, s), acc);
    if constexpr (F::kMinimum && F::kSets == 2)
        acc = fma(by.minimum(p, s), set1(x.scales[s] * static_cast<float>(x.half_sums[s])), acc);
    if constexpr (F::kMinimum && F::kSets == 1)
        if (s == F::kSums - 1) acc = fma(by.minimum(p, 0), set1(x.scaled_sum), acc);
}

// What a step adds to: kPanels panels side by side, kRows rows.
template <int kRows, int kPanels>
using TileSums = f32x16[kPanels][kRows];

// Adds one block of 32 inputs of kPanels panels, whose codes lie panel_bytes apart, to kRows rows; row r
// reads x[r * row_blocks]; scales_of() has what TileScales has. All rows take a step of four inputs before
// the next one, so that there are as many independent dot products as sums: their latency is 4 cycles and two
// can start in each. Two panels share each load of a row's codes, which is what else would limit: two loads a
// cycle. Measured against 12 rows of one panel: 355 instead of 335 G/s.
template <class F, int kRows, int kPanels, class ScalesOf>
PELTON_INLINE void block_step(const uint8_t* stored, int64_t panel_bytes, const ActivationBlock* x,
                              int64_t row_blocks, const BlockConstants<F>& c, TileSums<kRows, kPanels>& acc,
                              ScalesOf scales_of) {
    DotSum<F::kNarrow> sums[kPanels][kRows];
    PELTON_UNROLL for (int half = 0; half < 2; ++half) {
        if (half == 0 || F::kSums == 2) PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
                const i32x16 start = start_of_sum<F>(x[r * row_blocks], F::kSums == 2 ? half : 0, c);
                PELTON_UNROLL for (int p = 0; p < kPanels; ++p) sums[p][r] = DotSum<F::kNarrow>::from(start);
            }
        PELTON_UNROLL for (int j = 0; j < 4; ++j) {
            u8x64 codes[kPanels];
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) codes[p] =
                codes_of_step<F>(stored + p * panel_bytes, c, half, j);
            PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
                sums[p][r]
                    .step(codes[p], x[r * row_blocks].codes + 4 * (4 * half + j));
        }
        if (half == 0 && F::kSums == 1) continue;
        const auto scales = scales_of();
        PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
            const ActivationBlock& row = x[r * row_blocks];
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
                add_sum<F>(row, sums[p][r].total(), F::kSums == 2 ? half : 0, c, scales, p, acc[p][r]);
        }
    }
}

// What a slice of panels is of: blocks first..first + count of those from `panel` on.
struct SlicePlace {
    int64_t panel, first, count;
    bool starts, ends;
};

// `kept` [rows][panels][16]: what the slices before this one added up to.
template <int kRows, int kPanels>
PELTON_INLINE void start_slice_sums(const LinearCall& call, const SlicePlace& place, int64_t row,
                                    const float (*kept)[kPanels][kPanelOutputs],
                                    TileSums<kRows, kPanels>& acc) {
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
        acc[p][r] = place.starts ? set1(0.0f) : load(kept[r][p]);
        if (place.ends) ask_for_outputs(call, place.panel + p, row + r);
    }
}

template <int kRows, int kPanels>
PELTON_INLINE void end_slice_sums(const LinearCall& call, const SlicePlace& place, int64_t row,
                                  float (*kept)[kPanels][kPanelOutputs],
                                  const TileSums<kRows, kPanels>& acc) {
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
        if (place.ends)
            finish_row(call, place.panel + p, row + r, acc[p][r]);
        else
            store(kept[r][p], acc[p][r]);
    }
}

// Measured: one row then reads at the memory's speed, and sixteen rows take 0.4 of the time. One row reads
// past the caches where that is as quick: what Python needs between two steps stays there (110 -> 60 us a
// step). Otherwise into the second-level cache, which has more places for lines on their way than the first:
// decoding of 2, 4 and 8 sequences 1.14, 1.06 and 1.07 times as fast on Zen 4. What follows the panels of a
// tile, whose first ends at `end`, is as many panels on.
template <int kRows, int kPanels, int kBytes>
PELTON_INLINE void prefetch_panels(const uint8_t* from, const uint8_t* end, int64_t panel_bytes, bool keep) {
    from += from < end ? 0 : (kPanels - 1) * panel_bytes;
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
        PELTON_UNROLL for (int line = 0; line < kBytes; line += 64) {
        if (kRows > 1 || keep)
            __builtin_prefetch(from + p * panel_bytes + line, 0, 2);
        else
            __builtin_prefetch(from + p * panel_bytes + line, 0, 0);
    }
}

// What comes next while several tiles of rows read the same panels: each block of each tile asks for `step`
// bytes of each of kStreams, so that memory works as long as the multipliers do. Measured against asking a
// few kilobytes ahead, which leaves all of the next panels to the first tile: 48 rows gain 6 %.
struct Upcoming {
    const uint8_t* at = nullptr;
    int64_t step = 0;  // 0: nothing; of panels, there is one tile only

    template <int kStreams>
    PELTON_INLINE void prefetch(int64_t stream_bytes) {
        const uint8_t* const end = at + step;
        PELTON_UNROLL for (int p = 0; p < kStreams; ++p) for (const uint8_t* line = at; line < end;
                                                              line += 64)
            __builtin_prefetch(line + p * stream_bytes, 0, 2);
        at = end;
    }
    PELTON_INLINE void prefetch() { prefetch<1>(0); }
};

// A tile's run of a ReadAhead, which may be null, for as many blocks.
PELTON_INLINE Upcoming run_of_tile(ReadAhead* ahead, int64_t blocks) {
    if (ahead == nullptr || ahead->next == ahead->count) return {};
    return {ahead->runs[ahead->next++] + ahead->shift, (ahead->bytes / 64 + blocks - 1) / blocks * 64};
}

// Panels side by side in a tile, and the most rows. On AVX-512 12 sums, 12 dot products, 2 codes, a
// broadcast, scale and minimum of 32 registers.
#if defined(PELTON_ISA_avx512)
constexpr int kTilePanels = 2, kTileRows = 6;
#else
constexpr int kTilePanels = 1, kTileRows = 4;
#endif

// Calls f.template operator()<rows>() for the rows of a tile, 1 to kTileRows.
template <class Function>
PELTON_INLINE void with_tile_rows(int64_t rows, Function f) {
    switch (rows) {
        case 1:
            return f.template operator()<1>();
        case 2:
            return f.template operator()<2>();
        case 3:
            return f.template operator()<3>();
        case 4:
            return f.template operator()<4>();
        default:
            if constexpr (kTileRows > 4) {
                if (rows == 5) return f.template operator()<5>();
                return f.template operator()<6>();
            }
    }
}

// Small tiles share less, so what full ones leave over is cut evenly: 8 rows run as 4 and 4.
PELTON_INLINE int64_t next_tile(int64_t left) {
    if (left <= kTileRows) return left;
    return left < 2 * kTileRows ? (left + 1) / 2 : kTileRows;
}

// Rows row..end of kPanels panels, a tile after the other, each of `steps` steps.
template <class Tiles, int kPanels>
PELTON_INLINE void run_rows(const LinearCall& call, int64_t panel, Upcoming next, int64_t steps, int64_t row,
                            int64_t end) {
    while (row < end) {
        const int64_t rows = next_tile(end - row);
        with_tile_rows(rows,
                       [&]<int kRows>() { Tiles::template tile<kRows, kPanels>(call, panel, row, next); });
        row += rows;
        next.at += steps * next.step;
    }
}

// All of a rectangle. Tiles::tile<rows, panels>(call, panel, row, next) computes one tile, and
// Tiles::panels<panels>(call, panel, then, row, end) what a chunk of rows has of panels side by side.
template <class Tiles>
void run_tiles(const LinearCall& call, const LinearRange& range) {
    for (int64_t row = range.row_begin; row < range.row_end; row += kChunkRows) {
        const int64_t end = row + kChunkRows < range.row_end ? row + kChunkRows : range.row_end;
        // After the last panels come the first again, for the next rows, or what the caller reads then.
        const auto after = [&](int64_t panel) {
            if (panel >= range.panel_end && end == range.row_end && call.then != nullptr) return call.then;
            const int64_t next = panel < range.panel_end ? panel : range.panel_begin;
            return call.weight.data + next * call.weight.panel_bytes;
        };
        int64_t panel = range.panel_begin;
        // How many panels few rows read side by side is up to the memory, not the multipliers.
        if constexpr (kTilePanels == 2) {
            const int64_t rows = range.row_end - range.row_begin;
            const int streams = rows <= kFewRows ? call.reading.panels : 0;
            for (; streams == 4 && rows == 1 && range.panel_end - panel >= 4; panel += 4)
                Tiles::template tile<1, 4>(call, panel, row, {nullptr, 0});
            for (; streams == 1 && panel < range.panel_end; ++panel)
                Tiles::template panels<1>(call, panel, after(panel + 1), row, end);
        }
        for (; range.panel_end - panel >= kTilePanels; panel += kTilePanels)
            Tiles::template panels<kTilePanels>(call, panel, after(panel + kTilePanels), row, end);
        for (; panel < range.panel_end; ++panel)
            Tiles::template panels<1>(call, panel, after(panel + 1), row, end);
    }
    finish_call(call);
}

}  // namespace pelton::PELTON_ISA
