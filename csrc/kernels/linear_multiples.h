// Many rows by weights whose scales' multiples are ready. A sum's factor is a weight's scale times an
// activation's, whose fraction has few bits. The first tile of rows writes down what the weight's scale gives
// with each fraction; in the others an integer addition, which adds the exponents, takes the place of the
// multiplication, and no scale is widened. Same factors, hence the same bits.
//
// Where additions have ports of their own (Zen 4), a block then takes 10 operations of the ports that dot
// products need, not 11; of fine blocks 11, not 13. Measured with 96 rows of Q4_1: 342 instead of 325 G/s by
// 576 inputs, 350 instead of 333 by 1536.
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"
#include "kernels/linear_finish.h"
#include "kernels/linear_tile.h"

namespace pelton::PELTON_ISA {

constexpr int kMultiples = 1 << kScaleBits;
// Blocks of a slice, of two panels 28 KB; 9 and 12, which leave the cache more room, are up to 4 % slower.
constexpr int64_t kMultiplesBlocks = 24;
// From which on it pays: 8 tiles gain 2 %, 4 lose 3 %, as the first takes 1.4 times as long.
constexpr int64_t kMultiplesTiles = 7;

// A set of scales of one panel: its multiples, less the bits of what they are multiplied by, then the
// minimums, without minimums zeros.
struct alignas(64) SetMultiples {
    float vectors[kMultiples + 1][kPanelOutputs];
};

// Of a block of one panel.
template <class F>
struct BlockMultiples {
    SetMultiples sets[F::kSets];
};

// Of panels side by side, as TileScales.
template <class F>
struct TileMultiples {
    const BlockMultiples<F>* of;

    PELTON_INLINE f32x16 scaled(int p, const ActivationBlock& x, int s) const {
        constexpr int kShift = 23 - kScaleBits - 6;  // to places of vectors of 64 bytes
        int32_t bits;
        memcpy(&bits, &x.scales[s], 4);
        const uint32_t unsigned_bits = static_cast<uint32_t>(bits);
        uint32_t place = unsigned_bits >> kShift & (kMultiples - 1) << 6;
        // A broken block's scale is -infinity, which zeros leave as it is. Minimums make NaN of its sum.
        if constexpr (!F::kMinimum) place += unsigned_bits >> 31 << (kScaleBits + 6);
        const auto* from = reinterpret_cast<const char*>(of[p].sets[s % F::kSets].vectors) + place;
        // The broadcast of what is in memory is free; that of `bits` would take a vector port.
        return as_f32(as_i32(load(reinterpret_cast<const float*>(from))) + as_i32(set1(x.scales[s])));
    }
    PELTON_INLINE f32x16 minimum(int p, int s) const { return load(of[p].sets[s].vectors[kMultiples]); }
};

// Whether exponents of the panels' scales can be added to those of activations: none is 0 or far from 1.
template <class F, int kPanels>
bool ordinary_scales(const LinearCall& call, int64_t panel) {
    constexpr int32_t kLeastBits = (127 - 30) << 23, kMostBits = (127 + 30) << 23;
    const int64_t panel_bytes = call.weight.panel_bytes;
    const uint8_t* data = call.weight.data + panel * panel_bytes;
    const i32x16 magnitude = set1_i32(0x7fffffff);
    i32x16 largest = set1_i32(0), below = largest;  // how far the least is below `magnitude`
    for (int64_t i = 0; i < call.weight.inputs / kBlockInputs; ++i) {
        SuperScales super[kPanels];
        const BlockPlace place = place_of_block<F, kPanels>(data, panel_bytes, i, super);
        const auto by = tile_scales<F, kPanels>(place, panel_bytes);
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int s = 0; s < F::kSets; ++s) {
            const i32x16 bits = as_i32(by.of[p].scales[s]) & magnitude;
            largest = max(largest, bits);
            below = max(below, magnitude - bits);
        }
    }
    return reduce_max(largest) < kMostBits && 0x7fffffff - reduce_max(below) >= kLeastBits;
}

// 1, 1 + 1 / kMultiples, .. less than 2, and the step between them.
struct Factors {
    float factors[kMultiples] = {}, step = 1.0f / kMultiples;
    constexpr Factors() {
        for (int m = 0; m < kMultiples; ++m) factors[m] = 1.0f + static_cast<float>(m) / kMultiples;
    }
};
inline constexpr Factors kFactors;

// Multiples of float16 scales, and of integer multiples of these, are exact, so that they can be added up,
// which takes no port from dot products.
template <class F>
PELTON_INLINE void write_multiples(const BlockScales<F>& by, BlockMultiples<F>& to) {
    // Hidden, or the compiler keeps all factors in registers and a tile's sums on the stack.
    const Factors* from = &kFactors;
    asm("" : "+r"(from));
    PELTON_UNROLL for (int s = 0; s < F::kSets; ++s) {
        f32x16 multiple = by.scales[s];
        const f32x16 step = multiple * set1(from->step);
        PELTON_UNROLL for (int m = 0; m < kMultiples; ++m) {
            const f32x16 factor = set1(from->factors[m]);
            if (F::kScales == Scales::kFloat) multiple = by.scales[s] * factor;
            store(to.sets[s].vectors[m], as_f32(as_i32(multiple) - as_i32(factor)));
            if (F::kScales != Scales::kFloat) multiple = multiple + step;
        }
        store(to.sets[s].vectors[kMultiples], F::kMinimum ? by.minimums[s] : set1(0.0f));
    }
}

template <class F>
using MultiplesSlice = BlockMultiples<F>[kMultiplesBlocks][2];

// Blocks place.first.. of two panels. kWrites: the first tile of a slice. `kept` as in linear_unpacked.h.
template <class F, int kRows, bool kWrites>
__attribute__((noinline)) void multiples_tile(const LinearCall& call, MultiplesSlice<F>& slice,
                                              const SlicePlace& place, const BlockConstants<F>& c,
                                              int64_t row, float (*kept)[2][kPanelOutputs], Upcoming& next) {
    const int64_t num_blocks = call.weight.inputs / kBlockInputs, panel_bytes = call.weight.panel_bytes;
    const uint8_t* panel = call.weight.data + place.panel * panel_bytes;
    const ActivationBlock* x = call.blocks + row * num_blocks + place.first;
    TileSums<kRows, 2> acc;
    start_slice_sums<kRows, 2>(call, place, row, kept, acc);
    Upcoming run;
    if constexpr (!kWrites) run = run_of_tile(call.ahead, place.count);
    for (int64_t i = 0; i < place.count; ++i) {
        next.prefetch<2>(panel_bytes);
        if constexpr (!kWrites) run.prefetch();
        SuperScales super[2];
        const BlockPlace at = place_of_block<F, 2>(panel, panel_bytes, place.first + i, super);
        if constexpr (kWrites)
            PELTON_UNROLL for (int p = 0; p < 2; ++p)
                write_multiples<F>(BlockScales<F>(at, p, panel_bytes), slice[i][p]);
        block_step<F, kRows, 2>(at.codes, panel_bytes, x + i, num_blocks, c, acc, [&] {
            // What was just written is slow to come back.
            if constexpr (kWrites)
                return tile_scales<F, 2>(at, panel_bytes);
            else
                return TileMultiples<F>{slice[i]};
        });
    }
    end_slice_sums<kRows, 2>(call, place, row, kept, acc);
}

// Rows row..end, more than one tile and at most kChunkRows, of two panels with ordinary scales.
template <class F>
void multiples_panels(const LinearCall& call, int64_t panel, const uint8_t* then, int64_t row, int64_t end) {
    MultiplesSlice<F> slice;
    float kept[kChunkRows][2][kPanelOutputs];
    const int64_t num_blocks = call.weight.inputs / kBlockInputs, panel_bytes = call.weight.panel_bytes;
    const int64_t steps = (end - row + kTileRows - 1) / kTileRows * num_blocks;
    Upcoming next{then, (panel_bytes + steps - 1) / steps};
    const BlockConstants<F> constants = block_constants<F>(call.weight.layout);
    const int64_t slices = (num_blocks + kMultiplesBlocks - 1) / kMultiplesBlocks;
    const int64_t blocks = (num_blocks + slices - 1) / slices;  // of each, of the last perhaps fewer
    for (int64_t first = 0; first < num_blocks; first += blocks) {
        const int64_t left = num_blocks - first, count = left < blocks ? left : blocks;
        const SlicePlace place{panel, first, count, first == 0, count == left};
        multiples_tile<F, kTileRows, true>(call, slice, place, constants, row, kept, next);
        auto* kept_at = kept + kTileRows;
        for (int64_t at = row + kTileRows, rows; at < end; at += rows, kept_at += rows) {
            rows = next_tile(end - at);
            with_tile_rows(rows, [&]<int kRows>() {
                multiples_tile<F, kRows, false>(call, slice, place, constants, at, kept_at, next);
            });
        }
    }
}

}  // namespace pelton::PELTON_ISA
