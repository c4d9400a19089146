// What one forward pass shares with every instruction: the batch, the KV arena, and where each value lies.
#pragma once

#include <cstdint>
#include <vector>

#include "core/clock.h"
#include "core/cpu_features.h"
#include "core/thread_pool.h"
#include "kernels/table.h"
#include "runtime/batch.h"

namespace pelton {

// A float32 array [rows of the row set, width].
struct ValueSpec {
    std::int64_t width;
    int row_set;
};

// How weights are read unless something else was measured to be faster (pelton/exec/native_tuning.py).
//
// Intel's processors have no more lines on the way past the caches (prefetchnta) than the first-level cache
// has places for misses: two cores of Sapphire Rapids read 10 instead of 20 GB/s so. And they have two vector
// ports, where Zen 5 has four: unpacking codes takes them away from the multiplications.
//
// Past the caches Zen 4 reads one panel after the other at 29 GB/s, two side by side at 21, four at 22;
// through them 30, 27 and 29 (benchmarks/reading.py). Sapphire Rapids reads four at 22.5 and two at 20.
inline WeightReading usual_reading() noexcept {
    const bool intel = detect_intel();
    return {0, intel, intel ? 4 : 1, intel ? Prepared::kCodes : Prepared::kScales};
}

// How products of one row, of 2 to 8 and of more read their weights. Changes no bit.
struct Readings {
    WeightReading one = usual_reading(), few = one, many = one;
    const WeightReading& of(std::int64_t rows) const noexcept {
        return rows == 1 ? one : rows <= 8 ? few : many;
    }
};

struct RowRange {
    std::int64_t begin, end;
    std::int64_t size() const noexcept { return end - begin; }
};

inline RowRange share_of(std::int64_t count, int thread, int num_threads) noexcept {
    return {count * thread / num_threads, count * (thread + 1) / num_threads};
}

constexpr int kWaitStride = 8;  // a cache line each

// Values of a pass are either shared by the team or local. While few rows run (`replicated`), every thread
// computes all rows of its own copy of the local values, which costs less than the barriers it saves;
// otherwise the team has one copy and each thread works on its share of the rows.
struct Frame {
    const KernelTable* kernels = nullptr;
    ThreadPool* pool = nullptr;
    Readings readings;
    RaggedBatch batch;
    KvArrays kv{};
    bool replicated = false;
    bool only_greatest = false;  // of each row of logits nobody wants more than its greatest entry
    bool share_prefixes = true;  // attention reads a prefix that spans share once: see shared_prefix.h
    ReadAhead* ahead = nullptr;  // of thread i: what the attention after a product reads
    // Of traced runs: nanoseconds that thread i has waited inside instructions, at kWaitStride * i.
    std::int64_t* waits = nullptr;
    float *shared = nullptr, *local = nullptr;
    std::int64_t local_stride = 0;
    std::vector<std::int64_t> offsets;  // of value i, in floats
    std::vector<std::uint8_t> is_local;
    const std::vector<ValueSpec>* specs = nullptr;

    // A barrier inside an instruction; only a traced run looks at the clock.
    void meet(int thread) const {
        if (waits == nullptr) return pool->barrier();
        const std::int64_t start = nanoseconds();
        pool->barrier();
        waits[kWaitStride * thread] += nanoseconds() - start;
    }
    float* value(int id, int thread) const noexcept {
        if (!is_local[id]) return shared + offsets[id];
        return local + offsets[id] + (replicated ? thread * local_stride : 0);
    }
    std::int64_t width(int id) const noexcept { return (*specs)[id].width; }
    std::int64_t rows(int id) const noexcept { return batch.rows_of((*specs)[id].row_set); }
    // The rows of a value that a thread computes in a row-wise instruction.
    RowRange own_rows(int id, int thread) const noexcept {
        if (replicated) return {0, rows(id)};
        return share_of(rows(id), thread, pool->num_threads());
    }
};

}  // namespace pelton
