#include "isa/simd.h"
#include "kernels/probe.h"

namespace pelton::PELTON_ISA {

int64_t probe_bf16_peak(int64_t rounds, float* sink) {
    constexpr int kChains = 12;  // hide the latency of an instruction (4-6 cycles, two a cycle)
    uint16_t start[32] = {0x3f80, 0x3f00};
    asm volatile("" : "+m"(start));  // hides the values' origin, so that the loop is kept
    __m512bh factor;
    memcpy(&factor, start, sizeof factor);
    __m512 sums[kChains];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    for (int64_t round = 0; round < rounds; ++round) {
        PELTON_UNROLL for (int j = 0; j < 4; ++j) PELTON_UNROLL for (int i = 0; i < kChains; ++i) sums[i] =
            _mm512_dpbf16_ps(sums[i], factor, factor);
    }
    for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    *sink += reduce_add(f32x16{sums[0]});
    return rounds * 4 * kChains * 32;
}

}  // namespace pelton::PELTON_ISA
