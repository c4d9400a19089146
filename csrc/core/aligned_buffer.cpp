#include "core/aligned_buffer.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/errors.h"

#if defined(__linux__)
#    include <sys/mman.h>
#endif

namespace pelton {

namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

AlignedBuffer::AlignedBuffer(std::size_t num_bytes) : num_bytes_(num_bytes) {
    if (num_bytes == 0) return;
    const bool large = num_bytes >= 2 * kHugePage;
    const std::size_t alignment = large ? kHugePage : 64;
    const std::size_t rounded =
        num_bytes > SIZE_MAX - alignment ? 0 : (num_bytes + alignment - 1) / alignment * alignment;
    data_ = rounded == 0 ? nullptr : static_cast<std::uint8_t*>(std::aligned_alloc(alignment, rounded));
    if (data_ == nullptr) {
        num_bytes_ = 0;
        throw Error(ErrorKind::kMemory, "cannot allocate " + std::to_string(num_bytes) + " bytes");
    }
#if defined(__linux__)
    // Measured: fewer TLB misses while weights stream; refusal is harmless.
    if (large) madvise(data_, rounded, MADV_HUGEPAGE);
#endif
    std::memset(data_, 0, rounded);
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

}  // namespace pelton
