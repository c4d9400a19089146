// The end of every linear kernel: bias, the old outputs, the store of a panel that may be cut off.
#pragma once

#include "isa/simd.h"
#include "kernels/linear.h"

namespace pelton::PELTON_ISA {

PELTON_INLINE void finish_row(const LinearCall& call, int64_t panel, int64_t row, f32x16 acc) {
    const int64_t column = panel * kPanelOutputs, left = call.weight.outputs - column;
    const int count = left < kPanelOutputs ? static_cast<int>(left) : kPanelOutputs;
    float* y = call.outputs + row * call.output_stride + column;
    if (call.bias != nullptr) acc = acc + load_first(call.bias + column, count);
    if (call.add_to_outputs) acc = load_first(y, count) + acc;
    if (call.stream && count == kPanelOutputs && reinterpret_cast<uintptr_t>(y) % 64 == 0)
        return stream(y, acc);
    if (count == kPanelOutputs) return store(y, acc);
    store_first(y, count, acc);
}

// Asks for where a row's outputs go, which another processor may have.
PELTON_INLINE void ask_for_outputs(const LinearCall& call, int64_t panel, int64_t row) {
    if (!call.stream) __builtin_prefetch(call.outputs + row * call.output_stride + panel * kPanelOutputs, 1);
}

template <int kRows, int kPanels>
PELTON_INLINE void ask_for_outputs(const LinearCall& call, int64_t panel, int64_t row) {
    if (call.stream) return;
    const float* y = call.outputs + row * call.output_stride + panel * kPanelOutputs;
    PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
        __builtin_prefetch(y + r * call.output_stride + p * kPanelOutputs, 1);
}

// finish_row of a tile. Asking what there is to do once, not for each row, leaves the multipliers of a tile
// after it less to wait for.
template <int kRows, int kPanels>
PELTON_INLINE void finish_tile(const LinearCall& call, int64_t panel, int64_t row,
                               const f32x16 (&sums)[kPanels][kRows]) {
    const bool whole = (panel + kPanels) * kPanelOutputs <= call.weight.outputs;
    float* y = call.outputs + row * call.output_stride + panel * kPanelOutputs;
    if (whole && call.bias == nullptr && !call.stream) {
        if (call.add_to_outputs) {
            PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p) {
                float* to = y + r * call.output_stride + p * kPanelOutputs;
                store(to, load(to) + sums[p][r]);
            }
        } else {
            PELTON_UNROLL for (int r = 0; r < kRows; ++r) PELTON_UNROLL for (int p = 0; p < kPanels; ++p)
                store(y + r * call.output_stride + p * kPanelOutputs, sums[p][r]);
        }
        return;
    }
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r) finish_row(call, panel + p, row + r, sums[p][r]);
}

// After the last row of a call.
PELTON_INLINE void finish_call(const LinearCall& call) {
    if (call.stream) stream_fence();
}

}  // namespace pelton::PELTON_ISA
