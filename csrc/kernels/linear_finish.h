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

// After the last row of a call.
PELTON_INLINE void finish_call(const LinearCall& call) {
    if (call.stream) stream_fence();
}

}  // namespace pelton::PELTON_ISA
