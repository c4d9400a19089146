#include "runtime/page_reserve.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace pelton {

namespace {

// So few that a job that comes meanwhile waits some microseconds only.
constexpr std::int64_t kPagesAtOnce = 2;

bool make_pages(std::uint8_t* start, std::int64_t bytes) noexcept {
#if defined(__linux__)
    constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE of Linux 5.14: leaves what is there as it is
    return madvise(start, static_cast<std::size_t>(bytes), kPopulateWrite) == 0;
#else
    (void)start, (void)bytes;
    return false;
#endif
}

}  // namespace

void PageReserve::watch(const KvArrays& kv, std::int64_t used, std::shared_ptr<const void> owner) {
    const std::lock_guard<std::mutex> lock(mutex_);
    owner_ = std::move(owner);
    if (parts_[0].start != kv.keys || parts_[1].start != kv.values) {
        parts_[0] = {kv.keys};
        parts_[1] = {kv.values};
        used_ = num_bytes_ = 0;
    }
    used_ = std::max(used_, used);
    const std::int64_t block_bytes = kv.offset(1, 0, 0);
    const std::int64_t ahead = std::min(used_, kMostBytes / (2 * block_bytes));
    for (Part& part : parts_) {
        part.next = std::max(part.next, used_ * block_bytes);
        part.end = std::min(kv.num_blocks, used_ + ahead) * block_bytes;
    }
}

bool PageReserve::do_some() noexcept {
    static const std::int64_t page = sysconf(_SC_PAGESIZE);
    const std::lock_guard<std::mutex> lock(mutex_);
    Part& part = parts_[parts_[1].next < parts_[0].next];
    if (refused_ || part.next >= part.end) return false;
    // Whole pages, so that the first one may begin before the part that is wanted.
    const std::int64_t inside = reinterpret_cast<std::intptr_t>(part.start + part.next) % page;
    const std::int64_t bytes = std::min(kPagesAtOnce * page - inside, part.end - part.next);
    refused_ = !make_pages(part.start + part.next - inside, inside + bytes);
    part.next += bytes;
    num_bytes_ += bytes;
    return !refused_;
}

std::int64_t PageReserve::num_bytes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return num_bytes_;
}

}  // namespace pelton
