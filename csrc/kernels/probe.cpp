#include "kernels/probe.h"

#include "isa/simd.h"

namespace pelton::PELTON_ISA {

void probe_exp(const float* x, float* y, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) store(y + i, exp(load(x + i)));
}
void probe_coarse_exp2(const float* x, float* y, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) store(y + i, coarse_exp2(load(x + i)));
}
void probe_store_f16(const float* x, uint16_t* y, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) store_f16(y + i, load(x + i));
}
void probe_store_bf16(const float* x, uint16_t* y, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) store_bf16(y + i, load(x + i));
}
void probe_load_f16(const uint16_t* x, float* y, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) store(y + i, load_f16(x + i));
}
void probe_reduce(const float* x, float* sum_and_max) {
    sum_and_max[0] = reduce_add(load(x));
    sum_and_max[1] = reduce_max(load(x));
}

namespace {

// Enough chains to hide the latency of an instruction (4-5 cycles, two a cycle). Every loop over them is
// unrolled: one that is not keeps them in memory, and int8 then shows half of what the machine does.
#if defined(PELTON_ISA_avx512)
constexpr int kChains = 12;
#else
constexpr int kChains = 4;
#endif

// Hides a value's origin, so that the loop around it is kept.
template <class T>
PELTON_INLINE void launder(T& value) {
    asm volatile("" : "+m"(value));
}

}  // namespace

// Every chain has multipliers of its own, or the compiler would make one of all. Where it sees through
// products they may change at any step, too; on AVX-512 they stay in registers, as one from memory for each
// product leaves Sapphire Rapids, which loads two vectors a cycle, at 0.75 of what it multiplies.
int64_t probe_int8_peak(int64_t rounds, float* sink) {
    uint8_t bytes[64] = {1, 2, 3};
    int8_t q[kChains][4] = {{1, -1, 2, -2}};
    launder(bytes);
    launder(q);
    const u8x64 codes = load_u8x64(bytes);
    DotSum<false> sums[kChains];
    PELTON_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = DotSum<false>::from(set1_i32(0));
    for (int64_t round = 0; round < rounds; ++round) {
        PELTON_UNROLL for (int j = 0; j < 4; ++j) {
#if defined(PELTON_ISA_avx512)
            PELTON_UNROLL for (int i = 0; i < kChains; ++i) sums[i].v =
                add_byte_products({sums[i].v}, codes, {broadcast_dword(q[i])}).v;
#else
            launder(q);
            PELTON_UNROLL for (int i = 0; i < kChains; ++i) sums[i].step(codes, q[i]);
#endif
        }
    }
    i32x16 total = sums[0].total();
    PELTON_UNROLL for (int i = 1; i < kChains; ++i) total = total + sums[i].total();
    *sink += reduce_add(to_f32(total));
    return rounds * 4 * kChains * 64;
}

int64_t probe_f32_peak(int64_t rounds, float* sink) {
    float start[2] = {0.5f, 0.25f};
    launder(start);
    const f32x16 factor = set1(start[0]), addend = set1(start[1]);
    f32x16 sums[kChains];
    PELTON_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = set1(static_cast<float>(i));
    for (int64_t round = 0; round < rounds; ++round) {
        PELTON_UNROLL for (int j = 0; j < 4; ++j) PELTON_UNROLL for (int i = 0; i < kChains; ++i) sums[i] =
            fma(sums[i], factor, addend);
    }
    PELTON_UNROLL for (int i = 1; i < kChains; ++i) sums[0] += sums[i];
    *sink += reduce_add(sums[0]);
    return rounds * 4 * kChains * 16;
}

// The level avx512_bf16 has one.
int64_t probe_bf16_peak(int64_t, float*) { return 0; }

void probe_read(const uint8_t* data, int64_t num_bytes, float* sink) {
    i32x16 sums[4] = {set1_i32(0), set1_i32(0), set1_i32(0), set1_i32(0)};
    for (int64_t i = 0; i < num_bytes; i += 256) {
        int32_t words[64];
        memcpy(words, data + i, 256);
        __builtin_prefetch(data + i + 2048);
        PELTON_UNROLL for (int j = 0; j < 4; ++j) sums[j] = sums[j] + load_i32(words + 16 * j);
    }
    *sink += reduce_add(to_f32(sums[0] + sums[1] + sums[2] + sums[3]));
}

}  // namespace pelton::PELTON_ISA
