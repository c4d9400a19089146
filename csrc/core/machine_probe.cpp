#include "core/machine_probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "core/aligned_buffer.h"
#include "core/errors.h"

namespace pelton {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double read_bandwidth(const KernelTable& kernels, ThreadPool& pool, std::int64_t num_bytes, int repeats) {
    const std::int64_t threads = pool.num_threads();
    require(num_bytes >= 256 * threads && num_bytes <= (std::int64_t{1} << 40) && repeats >= 1,
            "a bandwidth measurement needs 256 bytes a thread and a pass");
    AlignedBuffer buffer(static_cast<std::size_t>(num_bytes));
    const std::int64_t share = num_bytes / threads / 256 * 256;
    // Pages that were never written are all one page of zeros, which the cache holds.
    pool.run([&](int thread_id) {
        std::memset(buffer.data() + share * thread_id, 1, static_cast<std::size_t>(share));
    });
    double best = 0.0;
    for (int pass = 0; pass < repeats; ++pass) {
        const auto start = std::chrono::steady_clock::now();
        pool.run([&](int thread_id) {
            float sink = 0.0f;
            kernels.probe.read(buffer.data() + share * thread_id, share, &sink);
        });
        best = std::max(best, static_cast<double>(share * threads) / seconds_since(start));
    }
    return best;
}

double arithmetic_peak(const KernelTable& kernels, ThreadPool& pool, const std::string& kind,
                       double seconds) {
    require(kind == "int8" || kind == "bf16" || kind == "f32", "the arithmetic peaks are int8, bf16 and f32");
    require(seconds > 0.0 && seconds <= 60.0, "an arithmetic peak is measured over at most 60 seconds");
    const auto loop = kind == "int8"   ? kernels.probe.int8_peak
                      : kind == "bf16" ? kernels.probe.bf16_peak
                                       : kernels.probe.f32_peak;
    double best = 0.0;
    const auto start = std::chrono::steady_clock::now();
    do {
        std::atomic<std::int64_t> total{0};
        const auto pass = std::chrono::steady_clock::now();
        pool.run([&](int) {
            float sink = 0.0f;
            total += loop(20000, &sink);
        });
        best = std::max(best, static_cast<double>(total.load()) / seconds_since(pass));
    } while (seconds_since(start) < seconds);
    return best;
}

double barrier_seconds(ThreadPool& pool, int rounds) {
    require(rounds >= 1, "a barrier measurement needs a round");
    double elapsed = 0.0;
    pool.run([&](int thread_id) {
        pool.barrier();
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < rounds; ++i) pool.barrier();
        if (thread_id == 0) elapsed = seconds_since(start);
    });
    return elapsed / rounds;
}

}  // namespace pelton
