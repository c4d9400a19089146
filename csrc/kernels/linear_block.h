// The loops over block-quantized panels by vector dot products; see linear_formats.h for the formats.
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"
#include "kernels/linear_finish.h"
#include "kernels/linear_multiples.h"
#include "kernels/linear_tile.h"
#include "kernels/linear_unpacked.h"

namespace pelton::PELTON_ISA {

template <class F, int kRows, int kPanels>
void block_tile(const LinearCall& call, int64_t panel, int64_t row, Upcoming next) {
    const int64_t num_blocks = call.weight.inputs / kBlockInputs, panel_bytes = call.weight.panel_bytes;
    const uint8_t* block = call.weight.data + panel * panel_bytes;
    const ActivationBlock* x = call.blocks + row * num_blocks;
    const BlockConstants<F> constants = block_constants<F>(call.weight.layout);
    TileSums<kRows, kPanels> acc;
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r) acc[p][r] =
        set1(0.0f);
    if constexpr (kRows > 2) {
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r)
            ask_for_outputs(call, panel + p, row + r);
    }
    // Few rows use a block up sooner than one does with its dependent sums; against 4096 for all, 1 row gains
    // 2 %, 4 rows 7 %, 8 rows 8 %.
    const int64_t ahead = (call.reading.ahead != 0 ? call.reading.ahead : kRows > 1 ? 8192 : 6144) / kPanels;
    const bool keep = call.reading.keep;
    const uint8_t* const end = block + panel_bytes;
    Upcoming run;  // few rows leave memory no time for more than their weights
    if constexpr (kRows > 2)
        if (next.step != 0) run = run_of_tile(call.ahead, num_blocks);
    if constexpr (F::kScales == Scales::kSuper) {
        constexpr int kHeadBytes = kSuperBytes + kSuperBlocks * F::kAllSetsBytes;
        for (int64_t i = 0; i < num_blocks; i += kSuperBlocks) {
            if (next.step == 0)
                prefetch_panels<kRows, kPanels, kHeadBytes>(block + ahead, end, panel_bytes, keep);
            SuperScales super[kPanels];
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
                const auto* halves = reinterpret_cast<const uint16_t*>(block + p * panel_bytes);
                super[p] = {load_f16(halves), load_f16(halves + kPanelOutputs)};
            }
            BlockPlace place{block + kHeadBytes, block + kSuperBytes, super};
            for (int part = 0; part < kSuperBlocks; ++part) {
                if (next.step == 0)
                    prefetch_panels<kRows, kPanels, F::kCodeBytes>(place.codes + ahead, end, panel_bytes,
                                                                   keep);
                else
                    next.prefetch<kPanels>(panel_bytes);
                if constexpr (kRows > 2) run.prefetch();
                block_step<F, kRows, kPanels>(place.codes, panel_bytes, x, num_blocks, constants, acc,
                                              [&] { return tile_scales<F, kPanels>(place, panel_bytes); });
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
                prefetch_panels<kRows, kPanels, kBytes>(block + ahead, end, panel_bytes, keep);
            else
                next.prefetch<kPanels>(panel_bytes);
            if constexpr (kRows > 2) run.prefetch();
            const BlockPlace place{block, block + F::kCodeBytes, nullptr};
            block_step<F, kRows, kPanels>(place.codes, panel_bytes, x, num_blocks, constants, acc,
                                          [&] { return tile_scales<F, kPanels>(place, panel_bytes); });
            block += kBytes;
            x += 1;
        }
    }
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r)
        finish_row(call, panel + p, row + r, acc[p][r]);
}

template <class F>
struct BlockTiles;

template <class F, int kPanels>
PELTON_INLINE void block_panel(const LinearCall& call, int64_t panel, const uint8_t* then, int64_t row,
                               int64_t end) {
    const int64_t num_blocks = call.weight.inputs / kBlockInputs, panel_bytes = call.weight.panel_bytes;
    const int64_t tiles = (end - row + kTileRows - 1) / kTileRows, steps = tiles * num_blocks;
    if constexpr (kTilePanels == 2 && kWorthUnpacking<F>)
        if (call.reading.prepared == Prepared::kCodes && tiles >= kUnpackingTiles)
            return unpacked_panel<F, kPanels>(call, panel, then, row, end);
    if constexpr (kPanels == 2)
        if (call.reading.prepared == Prepared::kScales && tiles >= kMultiplesTiles &&
            ordinary_scales<F, kPanels>(call, panel))
            return multiples_panels<F>(call, panel, then, row, end);
    run_rows<BlockTiles<F>, kPanels>(call, panel, {then, tiles > 1 ? (panel_bytes + steps - 1) / steps : 0},
                                     num_blocks, row, end);
}

template <class F>
struct BlockTiles {
    template <int kRows, int kPanels>
    static PELTON_INLINE void tile(const LinearCall& call, int64_t panel, int64_t row, Upcoming next) {
        block_tile<F, kRows, kPanels>(call, panel, row, next);
    }
    template <int kPanels>
    static PELTON_INLINE void panels(const LinearCall& call, int64_t panel, const uint8_t* then, int64_t row,
                                     int64_t end) {
        block_panel<F, kPanels>(call, panel, then, row, end);
    }
};

struct BlockLoop {
    template <class F>
    static void run(const LinearCall& call, const LinearRange& range) {
        run_tiles<BlockTiles<F>>(call, range);
    }
};

}  // namespace pelton::PELTON_ISA
