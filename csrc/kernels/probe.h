// Looking at a level from outside: its vector functions over arrays (tests hold them to their stated errors)
// and loops that do nothing but the arithmetic or the reading that bounds real kernels (`pelton doctor`).
#pragma once

#include <stdint.h>

namespace pelton {

struct ProbeKernels {
    // Arrays of `count` elements, a multiple of 16.
    void (*exp)(const float* x, float* y, int64_t count);
    void (*coarse_exp2)(const float* x, float* y, int64_t count);
    void (*store_f16)(const float* x, uint16_t* y, int64_t count);
    void (*store_bf16)(const float* x, uint16_t* y, int64_t count);
    void (*load_f16)(const uint16_t* x, float* y, int64_t count);
    void (*reduce)(const float* x, float* sum_and_max);  // 16 elements
    // Do `rounds` rounds of independent work and return its multiply-adds; 0 where the level has no such
    // instruction. `sink` keeps the compiler from dropping the work.
    int64_t (*int8_peak)(int64_t rounds, float* sink);
    int64_t (*bf16_peak)(int64_t rounds, float* sink);
    int64_t (*f32_peak)(int64_t rounds, float* sink);
    // Reads `num_bytes`, a multiple of 256.
    void (*read)(const uint8_t* data, int64_t num_bytes, float* sink);
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
void probe_exp(const float* x, float* y, int64_t count);
void probe_coarse_exp2(const float* x, float* y, int64_t count);
void probe_store_f16(const float* x, uint16_t* y, int64_t count);
void probe_store_bf16(const float* x, uint16_t* y, int64_t count);
void probe_load_f16(const uint16_t* x, float* y, int64_t count);
void probe_reduce(const float* x, float* sum_and_max);
int64_t probe_int8_peak(int64_t rounds, float* sink);
int64_t probe_bf16_peak(int64_t rounds, float* sink);
int64_t probe_f32_peak(int64_t rounds, float* sink);
void probe_read(const uint8_t* data, int64_t num_bytes, float* sink);
}  // namespace PELTON_ISA
#endif

}  // namespace pelton
