// Products with float32, float16 and bfloat16 panels: acc = fma(w[n, k], x[t, k], acc), k rising, for every
// tile.
#include "isa/simd.h"
#include "kernels/linear.h"
#include "kernels/linear_finish.h"

namespace pelton::PELTON_ISA {

namespace {

// Each type loads kStep neighbouring inputs of 16 outputs as float32.
struct F32Panel {
    static constexpr int kStep = 1, kBytes = 64;
    static PELTON_INLINE void load_step(const uint8_t* p, f32x16 (&w)[1]) {
        w[0] = load(reinterpret_cast<const float*>(p));
    }
};
struct F16Panel {
    static constexpr int kStep = 1, kBytes = 32;
    static PELTON_INLINE void load_step(const uint8_t* p, f32x16 (&w)[1]) {
        w[0] = load_f16(reinterpret_cast<const uint16_t*>(p));
    }
};
struct BF16Panel {
    static constexpr int kStep = 2, kBytes = 64;
    static PELTON_INLINE void load_step(const uint8_t* p, f32x16 (&w)[2]) {
        const i32x16 pairs = load_i32(reinterpret_cast<const int32_t*>(p));
        w[0] = bf16_low(pairs);
        w[1] = bf16_high(pairs);
    }
};

// Panels side by side, to hide the latency of fma behind independent sums, as far as registers go.
#if defined(PELTON_ISA_avx512)
constexpr int kMaxTileRows = 6;
constexpr int tile_panels(int) { return 4; }
#else
constexpr int kMaxTileRows = 4;
constexpr int tile_panels(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
#endif

// One load step of kPanels panels for kRows rows, `kCount` of its kStep inputs.
template <class P, int kRows, int kPanels, int kCount>
PELTON_INLINE void float_step(const uint8_t* w, int64_t panel_bytes, const float* x, int64_t stride,
                              f32x16 (&acc)[kRows][kPanels]) {
    f32x16 weights[kPanels][P::kStep];
    PELTON_UNROLL for (int p = 0; p < kPanels; ++p) P::load_step(w + p * panel_bytes, weights[p]);
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) {
        PELTON_UNROLL for (int s = 0; s < kCount; ++s) {
            const f32x16 value = set1(x[s]);
            PELTON_UNROLL for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(weights[p][s], value, acc[r][p]);
        }
        x += stride;
    }
}

template <class P, int kRows, int kPanels>
void float_tile(const LinearCall& call, int64_t panel, int64_t row) {
    const int64_t panel_bytes = call.weight.panel_bytes, inputs = call.weight.inputs;
    const uint8_t* w = call.weight.data + panel * panel_bytes;
    const float* x = call.inputs + row * call.input_stride;
    f32x16 acc[kRows][kPanels];
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p) acc[r][p] =
        set1(0.0f);
    const int64_t ahead = call.reading.ahead != 0 ? call.reading.ahead : 2048;
    int64_t k = 0;
    for (; k + P::kStep <= inputs; k += P::kStep) {
        PELTON_UNROLL for (int p = 0; p < kPanels; ++p) __builtin_prefetch(w + p * panel_bytes + ahead, 0, 2);
        float_step<P, kRows, kPanels, P::kStep>(w, panel_bytes, x + k, call.input_stride, acc);
        w += P::kBytes;
    }
    if (k < inputs) float_step<P, kRows, kPanels, 1>(w, panel_bytes, x + k, call.input_stride, acc);
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
        finish_row(call, panel + p, row + r, acc[r][p]);
}

template <class P, int kRows>
PELTON_INLINE void float_rows(const LinearCall& call, const LinearRange& range, int64_t panel, int64_t row) {
    if (panel + tile_panels(kRows) <= range.panel_end) {
        float_tile<P, kRows, tile_panels(kRows)>(call, panel, row);
    } else {
        for (; panel < range.panel_end; ++panel) float_tile<P, kRows, 1>(call, panel, row);
    }
}

template <class P>
void float_group(const LinearCall& call, const LinearRange& range) {
    int64_t row = range.row_begin;
    const auto all_panels = [&]<int kRows>() {
        for (int64_t panel = range.panel_begin; panel < range.panel_end; panel += tile_panels(kRows))
            for (int64_t r = row; r + kRows <= range.row_end; r += kRows)
                float_rows<P, kRows>(call, range, panel, r);
        row += (range.row_end - row) / kRows * kRows;
    };
    if constexpr (kMaxTileRows >= 6) all_panels.template operator()<6>();
    all_panels.template operator()<4>();
    all_panels.template operator()<2>();
    all_panels.template operator()<1>();
}

// Panels that stay in the second-level cache, so that tiles of several sizes read them from memory once.
template <class P>
void float_panels(const LinearCall& call, const LinearRange& range) {
    constexpr int64_t kGroupBytes = 256 * 1024;
    const int64_t fitting = kGroupBytes / call.weight.panel_bytes / 4 * 4, group = fitting < 4 ? 4 : fitting;
    for (int64_t panel = range.panel_begin; panel < range.panel_end; panel += group) {
        const int64_t end = panel + group < range.panel_end ? panel + group : range.panel_end;
        float_group<P>(call, {panel, end, range.row_begin, range.row_end});
    }
    finish_call(call);
}

}  // namespace

void linear_float(const LinearCall& call, const LinearRange& range) {
    switch (call.weight.layout.kind) {
        case WeightKind::kF16:
            return float_panels<F16Panel>(call, range);
        case WeightKind::kBF16:
            return float_panels<BF16Panel>(call, range);
        default:
            return float_panels<F32Panel>(call, range);
    }
}

}  // namespace pelton::PELTON_ISA
