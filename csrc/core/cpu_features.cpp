#include "core/cpu_features.h"

#include <unistd.h>

#include <cstring>
#include <thread>

#if defined(__linux__)
#    include <sched.h>
#endif
#if defined(__x86_64__)
#    include <cpuid.h>
#endif

namespace pelton {

namespace {

#if defined(__x86_64__)
struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
    Registers r;
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

// Register state the operating system saves on a task switch (XCR0).
unsigned saved_state() {
    unsigned low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

bool is_intel() {
    const Registers r = cpuid(0);
    return r.ebx == 0x756e6547u && r.edx == 0x49656e69u && r.ecx == 0x6c65746eu;  // "GenuineIntel"
}

bool bit(unsigned word, int index) { return (word >> index) & 1u; }

std::vector<std::string> detect_flags() {
    const Registers one = cpuid(1), seven = cpuid(7), seven_one = cpuid(7, 1);
    const unsigned state = bit(one.ecx, 27) ? saved_state() : 0;
    const bool ymm = (state & 0x6u) == 0x6u, zmm = (state & 0xe6u) == 0xe6u;
    const struct {
        const char* name;
        bool present;
    } rows[] = {
        {"sse4_2", bit(one.ecx, 20)},
        {"avx", ymm && bit(one.ecx, 28)},
        {"fma", ymm && bit(one.ecx, 12)},
        {"f16c", ymm && bit(one.ecx, 29)},
        {"avx2", ymm && bit(seven.ebx, 5)},
        {"avx_vnni", ymm && bit(seven_one.eax, 4)},
        {"avx512f", zmm && bit(seven.ebx, 16)},
        {"avx512dq", zmm && bit(seven.ebx, 17)},
        {"avx512bw", zmm && bit(seven.ebx, 30)},
        {"avx512vl", zmm && bit(seven.ebx, 31)},
        {"avx512_vnni", zmm && bit(seven.ecx, 11)},
        {"avx512_bf16", zmm && bit(seven_one.eax, 5)},
    };
    std::vector<std::string> flags;
    for (const auto& row : rows)
        if (row.present) flags.emplace_back(row.name);
    return flags;
}

std::string detect_brand() {
    if (cpuid(0x80000000u).eax < 0x80000004u) return {};
    char text[49] = {};
    for (unsigned leaf = 0; leaf < 3; ++leaf) {
        const Registers r = cpuid(0x80000002u + leaf);
        std::memcpy(text + 16 * leaf, &r, 16);
    }
    std::string brand(text);
    const std::size_t first = brand.find_first_not_of(' ');
    return first == std::string::npos ? std::string()
                                      : brand.substr(first, brand.find_last_not_of(' ') - first + 1);
}
#else
std::vector<std::string> detect_flags() { return {}; }
std::string detect_brand() { return {}; }
bool is_intel() { return false; }
#endif

std::int64_t cache_bytes([[maybe_unused]] int name) {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    const long bytes = sysconf(name);
    return bytes > 0 ? bytes : 0;
#else
    return 0;
#endif
}

}  // namespace

bool CpuFeatures::has(const std::string& flag) const {
    for (const std::string& present : flags)
        if (present == flag) return true;
    return false;
}

int num_usable_processors() {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
    const unsigned count = std::thread::hardware_concurrency();
    return count > 0 ? static_cast<int>(count) : 1;
}

CpuFeatures detect_cpu_features() {
    CpuFeatures found{detect_brand(), detect_flags(), num_usable_processors(), 0, 0, 0};
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    found.l1_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE);
    found.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
    found.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
#endif
    return found;
}

bool detect_intel() noexcept {
    static const bool found = is_intel();
    return found;
}

}  // namespace pelton
