#include "core/isa_level.h"

#include <cstdlib>

#include "core/cpu_features.h"
#include "core/errors.h"

namespace pelton {

namespace generic {
const KernelTable& kernels() noexcept;
}
#if defined(PELTON_HAS_avx2)
namespace avx2 {
const KernelTable& kernels() noexcept;
}
#endif
#if defined(PELTON_HAS_avx_vnni)
namespace avx_vnni {
const KernelTable& kernels() noexcept;
}
#endif
#if defined(PELTON_HAS_avx512)
namespace avx512 {
const KernelTable& kernels() noexcept;
}
namespace avx512_bf16 {
const KernelTable& kernels() noexcept;
}
#endif

namespace {

struct Level {
    const KernelTable& (*kernels)();
    std::vector<const char*> needs;
};

std::vector<Level> built_levels() {
    std::vector<Level> levels = {{generic::kernels, {}}};
#if defined(PELTON_HAS_avx2)
    levels.push_back({avx2::kernels, {"avx2", "fma", "f16c"}});
#endif
#if defined(PELTON_HAS_avx_vnni)
    levels.push_back({avx_vnni::kernels, {"avx2", "fma", "f16c", "avx_vnni"}});
#endif
#if defined(PELTON_HAS_avx512)
    levels.push_back({avx512::kernels,
                      {"avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni"}});
    levels.push_back(levels.back());
    levels.back().kernels = avx512_bf16::kernels;
    levels.back().needs.push_back("avx512_bf16");
#endif
    return levels;
}

std::vector<const KernelTable*> find_runnable_levels() {
    const CpuFeatures cpu = detect_cpu_features();
    std::vector<const KernelTable*> runnable;
    for (const Level& level : built_levels()) {
        bool complete = true;
        for (const char* flag : level.needs) complete = complete && cpu.has(flag);
        if (complete) runnable.push_back(&level.kernels());
    }
    return runnable;
}

// Found once: under a hypervisor each question to the processor traps, 50 microseconds in all.
const std::vector<const KernelTable*>& runnable_levels() {
    static const std::vector<const KernelTable*> found = find_runnable_levels();
    return found;
}

}  // namespace

std::vector<std::string> available_levels() {
    std::vector<std::string> names;
    for (const KernelTable* table : runnable_levels()) names.emplace_back(table->level);
    return names;
}

const KernelTable& kernels_for(const std::string& level) {
    const char* forced = std::getenv("PELTON_ISA");
    const std::string wanted = level.empty() && forced != nullptr ? forced : level;
    const std::vector<const KernelTable*>& runnable = runnable_levels();
    if (wanted.empty()) return *runnable.back();
    std::string listed;
    for (const KernelTable* table : runnable) {
        if (wanted == table->level) return *table;
        listed += listed.empty() ? table->level : std::string(", ") + table->level;
    }
    throw Error(ErrorKind::kConfig,
                "PELTON_ISA = '" + wanted + "': not available on this machine; it has " + listed);
}

}  // namespace pelton
