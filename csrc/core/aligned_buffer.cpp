#include "core/aligned_buffer.h"

#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/errors.h"

#if defined(__linux__)
#    include <sys/mman.h>
#endif

namespace pelton {

namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

// calloc, because it leaves pages that come fresh from the system untouched: they are faulted in by the
// threads that use them, and only as far as they do.
AlignedBuffer::AlignedBuffer(std::size_t num_bytes) : num_bytes_(num_bytes) {
    if (num_bytes == 0) return;
    const bool large = num_bytes >= 2 * kHugePage;
    const std::size_t alignment = large ? kHugePage : 64;
    memory_ = num_bytes > SIZE_MAX - alignment ? nullptr : std::calloc(num_bytes + alignment, 1);
    if (memory_ == nullptr) {
        num_bytes_ = 0;
        throw Error(ErrorKind::kMemory, "cannot allocate " + std::to_string(num_bytes) + " bytes");
    }
    const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(memory_);
    data_ = reinterpret_cast<std::uint8_t*>((first + alignment - 1) / alignment * alignment);
#if defined(__linux__)
    // Measured: fewer TLB misses while weights stream; refusal is harmless.
    if (large) madvise(data_, num_bytes, MADV_HUGEPAGE);
#endif
}

AlignedBuffer::~AlignedBuffer() { std::free(memory_); }

}  // namespace pelton
