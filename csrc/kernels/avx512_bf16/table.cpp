// The level avx512_bf16: what avx512 has, with the bfloat16 dot-product instruction where weights, or
// keys and values, are bfloat16. Only these files are compiled for it; what they do not replace is avx512's,
// compiled once.
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

void chunk_with_bf16(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
                     float* states) {
    if (tile.format == KvFormat::kBFloat16) return attend_chunk(tile, chunk, scores, state_size, states);
    avx512::kernels().attention.chunk(tile, chunk, scores, state_size, states);
}

void mass_with_bf16(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
                    const float* states, float* mass) {
    if (tile.format == KvFormat::kBFloat16) return add_mass(tile, chunk, scores, state_size, states, mass);
    avx512::kernels().attention.add_mass(tile, chunk, scores, state_size, states, mass);
}

KernelTable replaced() noexcept {
    KernelTable table = avx512::kernels();
    table.level = "avx512_bf16";
    table.linear.linear = linear_with_bf16;
    table.attention.chunk = chunk_with_bf16;
    table.attention.add_mass = mass_with_bf16;
    table.probe.bf16_peak = probe_bf16_peak;
    return table;
}

}  // namespace

const KernelTable& kernels() noexcept {
    static const KernelTable table = replaced();
    return table;
}

}  // namespace pelton::PELTON_ISA
