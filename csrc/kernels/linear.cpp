#include "kernels/linear.h"

namespace pelton::PELTON_ISA {

void linear(const LinearCall& call, const LinearRange& range) {
    const WeightLayout& layout = call.weight.layout;
    if (layout.kind == WeightKind::kPairs) return linear_pairs(call, range);
    if (layout.kind != WeightKind::kBlock) return linear_float(call, range);
    if (layout.bits == 8) return linear_u8(call, range);
    if (layout.has_table) return linear_u4_table(call, range);
    return linear_u4(call, range);
}

}  // namespace pelton::PELTON_ISA
