// The clock of traces: monotonic, the same as Python's time.perf_counter_ns on Linux.
#pragma once

#include <chrono>
#include <cstdint>

namespace pelton {

inline std::int64_t nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace pelton
