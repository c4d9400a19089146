// What this machine can do at most, measured: the ceilings that benchmarks compare against.
#pragma once

#include <cstdint>
#include <string>

#include "core/thread_pool.h"
#include "kernels/table.h"

namespace pelton {

// Bytes a second that the pool's threads read together from a buffer of `num_bytes`, each its own part; the
// best of `repeats` passes.
double read_bandwidth(const KernelTable& kernels, ThreadPool& pool, std::int64_t num_bytes, int repeats);

// Multiply-adds a second of all threads for "int8" (8-bit dot products), "bf16" or "f32"; 0 where the level
// lacks the instruction. Takes about `seconds`. Throws Error(kInvalidArgument) for another kind.
double arithmetic_peak(const KernelTable& kernels, ThreadPool& pool, const std::string& kind, double seconds);

// Seconds for one barrier of the pool, averaged over `rounds` in one run.
double barrier_seconds(ThreadPool& pool, int rounds);

}  // namespace pelton
