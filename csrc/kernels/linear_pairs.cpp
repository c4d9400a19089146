// Products of 4-bit weights in pairs of blocks: see core/weight_pairs.h for what a panel holds. For each
// segment of inputs, in rising order,
//     total = sum over two parts: part1 * scale1 + part2 * scale2, + sum over blocks: minimum * sum of codes
//         (of formats that have minimums)
//     acc = fma(total, unit of the segment, acc)
// and at the end y = acc * unit of the output. Parts are blocks, of fine activations halves of them; a part
// is the exact sum of (code - 8) * q, a scale the weight's times the activation's without its last 15 bits.
// All but acc are integers that cannot overflow.
//
// The sums of two parts, of block 1 above that of block 2, are the halves of one register, so that one
// instruction multiplies both by their scales and adds them up; no number is widened, or made a float but
// once in a segment. Of 64 inputs the ports that have 16 dot products have 3 operations more, not 4 to 6; 2
// without minimums.
#include "isa/simd.h"
#include "kernels/linear.h"
#include "kernels/linear_finish.h"
#include "kernels/linear_tile.h"

namespace pelton::PELTON_ISA {

namespace {

template <bool kFineActivations, bool kWithMinimum>
struct PairFormat {
    static constexpr bool kFine = kFineActivations, kMinimum = kWithMinimum;
    static constexpr int kBytes = pair_bytes(kMinimum);
    static constexpr int kHalfBytes = (kBytes / 2 + 63) / 64 * 64;  // whole lines, of the first half
};

// One number for each row and panel of a tile.
template <int kRows, int kPanels>
using Numbers = i32x16[kPanels][kRows];

PELTON_INLINE i32x16 set1_bytes(const void* four) {
    int32_t bytes;
    memcpy(&bytes, four, sizeof bytes);
    return set1_i32(bytes);
}

// Of AVX-512 only: elsewhere a tile has one panel.
constexpr int64_t kFewSums = 4;
template <int kRows, int kPanels>
constexpr bool kIsLarge = kRows * kPanels > kFewSums;

using Sum = DotSum<true>;

// Both parts of a pair, kSteps steps of four inputs each: sums of (code - 8) * q with that of block 1 above
// that of block 2. `starts` has what makes codes codes - 8. High nibbles that stay where they are count 16
// times.
//
// Of a large tile, which has no registers for more sums and needs none, the second sum begins with the first.
// As in block_step, all rows take a step before the next one.
template <int kSteps, int kRows, int kPanels>
PELTON_INLINE void add_part(const uint8_t* codes, int64_t panel_bytes, const ActivationPair* x,
                            int64_t row_pairs, int part, int first, Sum (&sums)[kPanels][kRows]) {
    PELTON_UNROLL for (int step = first; step < first + kSteps; ++step) {
        u8x64 four[kPanels];
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
            const u8x64 packed = load_u8x64(codes + p * panel_bytes + 64 * step);
            four[p] = part == 0 ? upper_nibbles(packed) : low_nibbles(packed);
        }
        PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
            const i32x16 q = set1_bytes(x[r * row_pairs].codes + kBlockInputs * part + 4 * step);
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) sums[p][r].step(four[p], q);
        }
    }
}

template <int kSteps, int kRows, int kPanels>
PELTON_INLINE void join_parts(const uint8_t* codes, int64_t panel_bytes, const ActivationPair* x,
                              int64_t row_pairs, int first, int start, Sum (&sums)[kPanels][kRows]) {
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p) sums[p][r] =
        Sum::from(set1_i32(0));
    add_part<kSteps>(codes, panel_bytes, x, row_pairs, 0, first, sums);
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p) sums[p][r] =
        Sum::from(shift_left<12>(sums[p][r].total()) + set1_i32(x[r * row_pairs].starts[start]));
    add_part<kSteps>(codes, panel_bytes, x, row_pairs, 1, first, sums);
}

struct Joined {
    i32x16 sum;
    PELTON_INLINE i32x16 total() const { return sum; }
};

// The same of few rows, each of whose codes is loaded once.
template <class F, int kSteps, int kRows, int kPanels, class Ask>
PELTON_INLINE void join_parts_of_few(const uint8_t* codes, int64_t panel_bytes, const ActivationPair* x,
                                     int64_t row_pairs, int first, int start,
                                     Joined (&joined)[kPanels][kRows], const Ask& ask) {
    Sum above[kPanels][kRows], sums[kPanels][kRows];
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
        above[p][r] = sums[p][r] = Sum::from(set1_i32(0));
    PELTON_UNROLL for (int step = first; step < first + kSteps; ++step) {
        if (step == 0) ask.template operator()<F::kHalfBytes>(codes);
        if (step == 4) ask.template operator()<F::kBytes - F::kHalfBytes>(codes + F::kHalfBytes);
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
            const u8x64 packed = load_u8x64(codes + p * panel_bytes + 64 * step);
            const u8x64 high = Sum::kTakesStart ? upper_nibbles(packed) : high_nibbles(packed);
            const u8x64 low = low_nibbles(packed);
            PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
                above[p][r].step(high, set1_bytes(x[r * row_pairs].codes + 4 * step));
                sums[p][r].step(low, set1_bytes(x[r * row_pairs].codes + kBlockInputs + 4 * step));
            }
        }
    }
    constexpr int kPlaces = Sum::kTakesStart ? 12 : 16;
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p) joined[p][r]
        .sum = sums[p][r].total() + shift_left<kPlaces>(above[p][r].total()) +
               set1_i32(x[r * row_pairs].starts[start]);
}

// Adds what sums of parts, [panels][rows], come to with their scales, and the minimums with the first ones:
// one after the other, as there are no registers for both.
template <class F, int kRows, int kPanels, class Part>
PELTON_INLINE void add_joined(const uint8_t* pair, int64_t panel_bytes, const ActivationPair* x,
                              int64_t row_pairs, int join, const Part (&sums)[kPanels][kRows],
                              Numbers<kRows, kPanels>& totals) {
    i32x16 set[kPanels];
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) set[p] =
        load_i32(reinterpret_cast<const int32_t*>(pair + p * panel_bytes + kPairCodeBytes));
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
        const i32x16 by = set1_bytes(x[r * row_pairs].scales + 2 * join);
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) totals[p][r] =
            add_pair_products(totals[p][r], sums[p][r].total(), scaled_pairs(set[p], by));
    }
    if (!F::kMinimum || join != 0) return;
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) set[p] =
        load_i32(reinterpret_cast<const int32_t*>(pair + p * panel_bytes + kPairCodeBytes + kPairSetBytes));
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
        const i32x16 codes = set1_bytes(x[r * row_pairs].sums);
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) totals[p][r] =
            add_pair_products(totals[p][r], set[p], codes);
    }
}

// ask<bytes>(half) asks ahead for what lies as far behind half of the pair's bytes.
template <class F, int kRows, int kPanels, class Ask>
PELTON_INLINE void pair_step(const uint8_t* pair, int64_t panel_bytes, const ActivationPair* x,
                             int64_t row_pairs, Numbers<kRows, kPanels>& totals, const Ask& ask) {
    constexpr int kJoins = F::kFine ? 2 : 1, kSteps = 8 / kJoins;
    PELTON_UNROLL for (int join = 0; join < kJoins; ++join) {
        if constexpr (kIsLarge<kRows, kPanels>) {
            Sum sums[kPanels][kRows];
            join_parts<kSteps>(pair, panel_bytes, x, row_pairs, kSteps * join, join, sums);
            add_joined<F>(pair, panel_bytes, x, row_pairs, join, sums, totals);
        } else {
            Joined sums[kPanels][kRows];
            join_parts_of_few<F, kSteps>(pair, panel_bytes, x, row_pairs, kSteps * join, join, sums, ask);
            add_joined<F>(pair, panel_bytes, x, row_pairs, join, sums, totals);
        }
    }
}

// What a tile asks for ahead: few rows what they will read, others what comes after their panels.
template <int kRows, int kPanels>
struct TileAhead {
    Upcoming next, run;
    const uint8_t* end;  // of the tile's first panel
    int64_t panel_bytes, distance;
    bool keep;

    // As far on from kBytes of a pair.
    template <int kBytes>
    PELTON_INLINE void ask(const uint8_t* half) const {
        if (next.step == 0) prefetch_panels<kRows, kPanels, kBytes>(half + distance, end, panel_bytes, keep);
    }
    PELTON_INLINE void begin_pair() {
        if (next.step != 0) next.prefetch<kPanels>(panel_bytes);
        if constexpr (kRows > 2) run.prefetch();
    }
    // The units are a line as well: without this each panel waits for one, which takes 15 % of one row's
    // speed.
    PELTON_INLINE void ask_for_units(const uint8_t* units) const { ask<64>(units); }
};

// What `count` pairs of a segment come to.
template <class F, int kRows, int kPanels>
PELTON_INLINE void sum_segment(const uint8_t* pair, int64_t panel_bytes, const ActivationPair* x,
                               int64_t row_pairs, int64_t count, Numbers<kRows, kPanels>& totals,
                               TileAhead<kRows, kPanels>& ahead) {
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r)
        totals[p][r] = set1_i32(0);
    const auto ask = [&]<int kBytes>(const uint8_t* half) { ahead.template ask<kBytes>(half); };
    for (int64_t i = 0; i < count; ++i, pair += F::kBytes, ++x) {
        ahead.begin_pair();
        pair_step<F, kRows, kPanels>(pair, panel_bytes, x, row_pairs, totals, ask);
    }
}

// Calls ended(totals, last) after each segment of a row of pairs: what it comes to, and its last activations.
template <class F, int kRows, int kPanels, class Ended>
PELTON_INLINE void for_segments(const uint8_t* pair, int64_t panel_bytes, const ActivationPair* x,
                                int64_t row_pairs, int64_t segment, TileAhead<kRows, kPanels>& ahead,
                                const Ended& ended) {
    for (int64_t left = row_pairs; left > 0; left -= segment) {
        const int64_t count = left < segment ? left : segment;
        Numbers<kRows, kPanels> totals;
        sum_segment<F>(pair, panel_bytes, x, row_pairs, count, totals, ahead);
        pair += count * F::kBytes;
        x += count;
        ended(totals, x - 1);
    }
}

// Sums of all segments, in registers.
template <class F, int kRows, int kPanels>
PELTON_INLINE void sum_small(const uint8_t* pair, int64_t panel_bytes, const ActivationPair* x,
                             int64_t row_pairs, int64_t segment, f32x16 (&sums)[kPanels][kRows],
                             TileAhead<kRows, kPanels>& ahead) {
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r) sums[p][r] =
        set1(0.0f);
    const auto add = [&](const Numbers<kRows, kPanels>& totals, const ActivationPair* last) {
        PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
            const f32x16 unit = set1(last[r * row_pairs].unit);
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) sums[p][r] =
                fma(to_f32(totals[p][r]), unit, sums[p][r]);
        }
    };
    for_segments<F>(pair, panel_bytes, x, row_pairs, segment, ahead, add);
}

// The same of a large tile, whose totals and parts take all registers: sums [rows][panels][16] lie in memory,
// where compilers have to leave them and nothing else; those of the first segment begin with zeros that lie
// there already. By itself, as compilers find fewer registers where there is more around it.
template <class F, int kRows, int kPanels>
__attribute__((noinline)) void sum_large(const uint8_t* pair, int64_t panel_bytes, const ActivationPair* x,
                                         int64_t row_pairs, int64_t segment, float* sums,
                                         TileAhead<kRows, kPanels>& ahead) {
    alignas(64) static const float kZeros[kPanels * kRows * kPanelOutputs] = {};
    const float* before = kZeros;
    const auto add = [&](const Numbers<kRows, kPanels>& totals, const ActivationPair* last) {
        PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
            const f32x16 unit = set1(last[r * row_pairs].unit);
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
                const int64_t place = (r * kPanels + p) * kPanelOutputs;
                store(sums + place, fma(to_f32(totals[p][r]), unit, load(before + place)));
            }
        }
        before = sums;
        asm volatile("" ::: "memory");
    };
    for_segments<F>(pair, panel_bytes, x, row_pairs, segment, ahead, add);
}

template <class F, int kRows, int kPanels>
void pair_tile(const LinearCall& call, int64_t panel, int64_t row, Upcoming next) {
    const int64_t num_pairs = pairs_of(call.weight.inputs), panel_bytes = call.weight.panel_bytes;
    const uint8_t* pair = call.weight.data + panel * panel_bytes;
    const ActivationPair* x = call.pairs + row * num_pairs;
    const int64_t segment = call.weight.layout.segment;
    const int64_t distance = call.reading.ahead != 0 ? call.reading.ahead : kRows > 1 ? 8192 : 6144;
    TileAhead<kRows, kPanels> ahead{
        next, {}, pair + panel_bytes, panel_bytes, distance / kPanels, call.reading.keep};
    if constexpr (kRows > 2) {  // few rows leave memory no time for more than their weights
        if (next.step != 0) ahead.run = run_of_tile(call.ahead, num_pairs);
        ask_for_outputs<kRows, kPanels>(call, panel, row);
    }
    f32x16 sums[kPanels][kRows];
    if constexpr (kIsLarge<kRows, kPanels>) {
        alignas(64) float kept[kPanels * kRows * kPanelOutputs];
        sum_large<F, kRows, kPanels>(pair, panel_bytes, x, num_pairs, segment, kept, ahead);
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) PELTON_UNROLL for (int r = 0; r < kRows; ++r)
            sums[p][r] = load(kept + (r * kPanels + p) * kPanelOutputs);
    } else {
        sum_small<F>(pair, panel_bytes, x, num_pairs, segment, sums, ahead);
    }
    const uint8_t* units = pair + num_pairs * F::kBytes;
    ahead.ask_for_units(units);
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
        const f32x16 unit = load(reinterpret_cast<const float*>(units + p * panel_bytes));
        PELTON_UNROLL for (int r = 0; r < kRows; ++r) sums[p][r] = sums[p][r] * unit;
    }
    finish_tile<kRows, kPanels>(call, panel, row, sums);
}

template <class F>
struct PairTiles {
    template <int kRows, int kPanels>
    static PELTON_INLINE void tile(const LinearCall& call, int64_t panel, int64_t row, Upcoming next) {
        pair_tile<F, kRows, kPanels>(call, panel, row, next);
    }
    template <int kPanels>
    static PELTON_INLINE void panels(const LinearCall& call, int64_t panel, const uint8_t* then, int64_t row,
                                     int64_t end) {
        const int64_t tiles = (end - row + kTileRows - 1) / kTileRows;
        const int64_t pairs = pairs_of(call.weight.inputs), steps = tiles * pairs;
        const bool alone = tiles == 1 && (end - row) * kPanels <= kFewSums;
        const int64_t step = alone ? 0 : (call.weight.panel_bytes + steps - 1) / steps;
        run_rows<PairTiles, kPanels>(call, panel, {then, step}, pairs, row, end);
    }
};

template <bool kFine>
void run_of(const LinearCall& call, const LinearRange& range) {
    call.weight.layout.has_minimum ? run_tiles<PairTiles<PairFormat<kFine, true>>>(call, range)
                                   : run_tiles<PairTiles<PairFormat<kFine, false>>>(call, range);
}

}  // namespace

void linear_pairs(const LinearCall& call, const LinearRange& range) {
    call.fine ? run_of<true>(call, range) : run_of<false>(call, range);
}

}  // namespace pelton::PELTON_ISA
