// What the processor can do and what this process may use of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pelton {

struct CpuFeatures {
    std::string brand;               // the processor's own name, empty where unknown
    std::vector<std::string> flags;  // instruction sets found that pelton knows of, such as "avx512_vnni"
    int num_processors;              // logical processors this process may run on
    std::int64_t l1_bytes, l2_bytes, l3_bytes;  // data caches of one core and the shared one; 0 where unknown

    bool has(const std::string& flag) const;
};

// Asks the processor and the operating system afresh; takes some microseconds.
CpuFeatures detect_cpu_features();

int num_usable_processors();

// Found once: under a hypervisor each question to the processor traps.
bool detect_intel() noexcept;

}  // namespace pelton
