// Products with bfloat16 panels by the bfloat16 dot-product instruction, which takes activations rounded to
// bfloat16. For each pair of inputs, in rising order and for every tile: acc = acc + w[n, k + 1] * x[t, k +
// 1], then + w[n, k] * x[t, k], each sum rounded to float32 (the products are exact), denormals read as 0.
#include "isa/simd.h"
#include "kernels/linear.h"
#include "kernels/linear_finish.h"

namespace pelton::PELTON_ISA {

namespace {

constexpr int kPairsBytes = 64;  // of two inputs of a panel
constexpr int64_t kSliceInputs =
    512;  // rounded at a time, so that a tile's rounded rows stay in the first cache
constexpr int kMaxTileRows = 6, kTilePanels = 4;  // 24 sums, 4 weights and a broadcast of 32 registers

// One row's inputs first..first + count as pairs, zeros after the last up to a multiple of 32.
PELTON_INLINE void round_row(const float* x, int64_t count, int32_t* pairs) {
    for (int64_t k = 0; k < count; k += 32, pairs += 16) {
        f32x16 low, high;
        if (k + 32 <= count) {
            low = load(x + k);
            high = load(x + k + 16);
        } else {
            const int left = static_cast<int>(count - k);
            low = load_first(x + k, left < 16 ? left : 16);
            high = left > 16 ? load_first(x + k + 16, left - 16) : set1(0.0f);
        }
        const __m512bh both = _mm512_cvtne2ps_pbh(high.v, low.v);
        memcpy(pairs, &both, sizeof both);
    }
}

PELTON_INLINE __m512bh load_pairs(const uint8_t* p) {
    __m512bh pairs;
    memcpy(&pairs, p, sizeof pairs);
    return pairs;
}

PELTON_INLINE __m512bh broadcast_pair(const int32_t* p) {
    const __m512i all = _mm512_set1_epi32(*p);
    __m512bh pairs;
    memcpy(&pairs, &all, sizeof pairs);
    return pairs;
}

template <int kRows, int kPanels>
void bf16_tile(const LinearCall& call, int64_t panel, int64_t row) {
    const int64_t panel_bytes = call.weight.panel_bytes, inputs = call.weight.inputs;
    const uint8_t* w = call.weight.data + panel * panel_bytes;
    const float* x = call.inputs + row * call.input_stride;
    alignas(64) int32_t rounded[kRows][kSliceInputs / 2];
    __m512 acc[kRows][kPanels];
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p) acc[r][p] =
        _mm512_setzero_ps();
    const int64_t ahead = call.reading.ahead != 0 ? call.reading.ahead : 2048;
    for (int64_t slice = 0; slice < inputs; slice += kSliceInputs) {
        const int64_t left = inputs - slice, count = left < kSliceInputs ? left : kSliceInputs;
        for (int r = 0; r < kRows; ++r) round_row(x + r * call.input_stride + slice, count, rounded[r]);
        for (int64_t pair = 0; pair < (count + 1) / 2; ++pair, w += kPairsBytes) {
            __m512bh weights[kPanels];
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
                __builtin_prefetch(w + p * panel_bytes + ahead, 0, 2);
                weights[p] = load_pairs(w + p * panel_bytes);
            }
            PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
                const __m512bh value = broadcast_pair(rounded[r] + pair);
                PELTON_UNROLL for (int p = 0; p < kPanels; ++p) acc[r][p] =
                    _mm512_dpbf16_ps(acc[r][p], weights[p], value);
            }
        }
    }
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
        finish_row(call, panel + p, row + r, f32x16{acc[r][p]});
}

template <int kRows>
PELTON_INLINE void bf16_rows(const LinearCall& call, int64_t panel, int64_t end, int64_t row) {
    if (end - panel >= kTilePanels) return bf16_tile<kRows, kTilePanels>(call, panel, row);
    for (; panel < end; ++panel) bf16_tile<kRows, 1>(call, panel, row);
}

PELTON_INLINE void bf16_tile_of(const LinearCall& call, int64_t panel, int64_t end, int64_t row,
                                int64_t rows) {
    switch (rows) {
        case 6:
            return bf16_rows<6>(call, panel, end, row);
        case 5:
            return bf16_rows<5>(call, panel, end, row);
        case 4:
            return bf16_rows<4>(call, panel, end, row);
        case 3:
            return bf16_rows<3>(call, panel, end, row);
        case 2:
            return bf16_rows<2>(call, panel, end, row);
        default:
            return bf16_rows<1>(call, panel, end, row);
    }
}

// What tiles of six leave over is cut evenly: 8 rows run as 4 and 4.
PELTON_INLINE int64_t next_tile(int64_t left) {
    if (left >= 2 * kMaxTileRows) return kMaxTileRows;
    return left > kMaxTileRows ? (left + 1) / 2 : left;
}

}  // namespace

// Four panels are read from memory once and then, for the other rows, from the second-level cache.
void linear_bf16(const LinearCall& call, const LinearRange& range) {
    for (int64_t panel = range.panel_begin; panel < range.panel_end; panel += kTilePanels)
        for (int64_t row = range.row_begin, rows; row < range.row_end; row += rows) {
            rows = next_tile(range.row_end - row);
            bf16_tile_of(call, panel, range.panel_end, row, rows);
        }
    finish_call(call);
}

}  // namespace pelton::PELTON_ISA
