// Many rows by weights whose codes are unpacked once for all of them: a byte for each code and float scales,
// in the layout of 8-bit panels, a slice of two panels at a time. Elsewhere every tile of six rows unpacks
// anew, which costs nothing where vector ports are idle anyhow, but a sixth of the time where there are two
// of them. Same sums in the same order, hence the same bits.
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"
#include "kernels/linear_tile.h"

namespace pelton::PELTON_ISA {

// Of two panels 11 KB: with a tile's rows they stay in half of a first-level cache, whose other half belongs
// to the other hyperthread. 24 blocks filled most of it: a prompt of 512 tokens takes 0.95 of the time.
constexpr int64_t kSliceBlocks = 9;
// From which on it pays: by 5 % with 96 rows of 4-bit codes, while 24 rows lose 5 %.
constexpr int64_t kUnpackingTiles = 8;

// Codes of 8 bits need no unpacking; what scales in two parts take is worth it.
template <class F>
constexpr bool kWorthUnpacking = F::kBits == 4 || F::kScales == Scales::kSuper;

template <class F>
using Unpacked =
    BlockFormat<8, false, kBlockInputs / F::kSets, Scales::kFloat, F::kMinimum, F::kSums != F::kSets>;

// One panel's part of a slice, of a format U = Unpacked<F>.
template <class U>
struct alignas(64) UnpackedPanel {
    uint8_t blocks[kSliceBlocks][U::kCodeBytes + U::kAllSetsBytes];
};

template <class F>
PELTON_INLINE void unpack_block(const BlockPlace& place, const BlockConstants<F>& c, uint8_t* to) {
    PELTON_UNROLL for (int half = 0; half < 2; ++half) PELTON_UNROLL for (int j = 0; j < 4; ++j)
        store_u8x64(to + 64 * (4 * half + j), codes_of_step<F>(place.codes, c, half, j));
    const BlockScales<F> by(place, 0, 0);
    auto* sets = reinterpret_cast<float*>(to + Unpacked<F>::kCodeBytes);
    PELTON_UNROLL for (int s = 0; s < F::kSets; ++s) {
        store(sets + s * kPanelOutputs, by.scales[s]);
        if constexpr (F::kMinimum) store(sets + (F::kSets + s) * kPanelOutputs, by.minimums[s]);
    }
}

// Blocks first..first + count of a panel.
template <class F>
void unpack_panel(const uint8_t* panel, int64_t first, int64_t count, const BlockConstants<F>& c,
                  UnpackedPanel<Unpacked<F>>& to) {
    for (int64_t i = 0; i < count; ++i) {
        SuperScales super[1];
        unpack_block<F>(place_of_block<F, 1>(panel, 0, first + i, super), c, to.blocks[i]);
    }
}

template <class U, int kRows, int kPanels>
void slice_tile(const LinearCall& call, const UnpackedPanel<U> (&slice)[kPanels], const SlicePlace& place,
                const BlockConstants<U>& c, int64_t row, float (*kept)[kPanels][kPanelOutputs],
                Upcoming& next) {
    const int64_t num_blocks = call.weight.inputs / kBlockInputs;
    const ActivationBlock* x = call.blocks + row * num_blocks + place.first;
    TileSums<kRows, kPanels> acc;
    start_slice_sums<kRows, kPanels>(call, place, row, kept, acc);
    Upcoming run = run_of_tile(call.ahead, place.count);
    for (int64_t i = 0; i < place.count; ++i) {
        next.prefetch<kPanels>(call.weight.panel_bytes);
        run.prefetch();
        const uint8_t* block = slice[0].blocks[i];
        const BlockPlace at{block, block + U::kCodeBytes, nullptr};
        constexpr int64_t kBytes = sizeof(UnpackedPanel<U>);
        block_step<U, kRows, kPanels>(block, kBytes, x + i, num_blocks, c, acc,
                                      [&] { return tile_scales<U, kPanels>(at, kBytes); });
    }
    end_slice_sums<kRows, kPanels>(call, place, row, kept, acc);
}

template <class U, int kPanels>
PELTON_INLINE void slice_rows(const LinearCall& call, const UnpackedPanel<U> (&slice)[kPanels],
                              const SlicePlace& place, const BlockConstants<U>& c, int64_t row, int64_t end,
                              float (*kept)[kPanels][kPanelOutputs], Upcoming& next) {
    for (int64_t rows; row < end; row += rows, kept += rows) {
        rows = next_tile(end - row);
        with_tile_rows(rows, [&]<int kRows>() {
            slice_tile<U, kRows, kPanels>(call, slice, place, c, row, kept, next);
        });
    }
}

// Rows row..end, at most kChunkRows, of kPanels panels.
template <class F, int kPanels>
void unpacked_panel(const LinearCall& call, int64_t panel, const uint8_t* then, int64_t row, int64_t end) {
    using U = Unpacked<F>;
    UnpackedPanel<U> slice[kPanels];
    float kept[kChunkRows][kPanels][kPanelOutputs];
    const int64_t num_blocks = call.weight.inputs / kBlockInputs, panel_bytes = call.weight.panel_bytes;
    const int64_t steps = (end - row + kTileRows - 1) / kTileRows * num_blocks;
    Upcoming next{then, (panel_bytes + steps - 1) / steps};
    const BlockConstants<F> packed = block_constants<F>(call.weight.layout);
    const BlockConstants<U> constants = block_constants<U>(call.weight.layout);
    const int64_t slices = (num_blocks + kSliceBlocks - 1) / kSliceBlocks;
    const int64_t blocks = (num_blocks + slices - 1) / slices;  // of each, of the last perhaps fewer
    for (int64_t first = 0; first < num_blocks; first += blocks) {
        const int64_t left = num_blocks - first, count = left < blocks ? left : blocks;
        for (int p = 0; p < kPanels; ++p)
            unpack_panel<F>(call.weight.data + (panel + p) * panel_bytes, first, count, packed, slice[p]);
        slice_rows<U, kPanels>(call, slice, {panel, first, count, first == 0, count == left}, constants, row,
                               end, kept, next);
    }
}

}  // namespace pelton::PELTON_ISA
