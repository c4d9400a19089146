// The level avx512_bf16: what avx512 has, with the bfloat16 dot-product instruction where weights are
// bfloat16. Only these files are compiled for it; what they do not replace is avx512's, compiled once.
#include "kernels/table.h"

namespace pelton::avx512 {
const KernelTable& kernels() noexcept;
}

namespace pelton::PELTON_ISA {

namespace {

void linear_with_bf16(const LinearCall& call, const LinearRange& range) {
    if (call.weight.layout.kind == WeightKind::kBF16) return linear_bf16(call, range);
    avx512::kernels().linear.linear(call, range);
}

KernelTable replaced() noexcept {
    KernelTable table = avx512::kernels();
    table.level = "avx512_bf16";
    table.linear.linear = linear_with_bf16;
    table.probe.bf16_peak = probe_bf16_peak;
    return table;
}

}  // namespace

const KernelTable& kernels() noexcept {
    static const KernelTable table = replaced();
    return table;
}

}  // namespace pelton::PELTON_ISA
