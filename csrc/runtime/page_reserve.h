// Memory of a KV arena that will be wanted next, asked for while a thread has nothing else to do.
//
// An arena's pages come into being when they are first written, which takes 3 microseconds each, and 20 where
// a virtual machine has to get them from its host: 512 tokens of the default model then take 185 ms instead
// of 125. Between two passes a team's second thread waits for Python; in that time it has the next ones made.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "core/thread_pool.h"
#include "runtime/batch.h"

namespace pelton {

class PageReserve : public IdleWork {
  public:
    // As many blocks ahead as have been used, but at most this much memory.
    static constexpr std::int64_t kMostBytes = std::int64_t{128} << 20;

    // A pass uses the first `used` blocks of this arena at most, which `owner` keeps alive until the next
    // call. Blocks are first used in ascending order.
    void watch(const KvArrays& kv, std::int64_t used, std::shared_ptr<const void> owner);

    // A few pages; false when there are enough.
    bool do_some() noexcept override;

    // Of the arena watched: bytes asked for so far, keys and values.
    std::int64_t num_bytes();

  private:
    struct Part {  // keys or values
        std::uint8_t* start = nullptr;
        std::int64_t next = 0, end = 0;  // bytes from there: where to go on, and how far
    };

    std::mutex mutex_;
    std::shared_ptr<const void> owner_;
    Part parts_[2];
    std::int64_t used_ = 0, num_bytes_ = 0;
    bool refused_ = false;  // by an older system
};

}  // namespace pelton
