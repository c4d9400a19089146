// Items of work that threads take as they come free.
//
// Where other programs, or the neighbours of a virtual machine, slow threads down in turns, equal shares wait
// for the slowest: 4 to 13 % of a prompt on two hyperthreads of a shared Xeon. Two threads take items from
// the two ends of a stretch until they meet, so each keeps to neighbours, whose data its caches know, and
// then from other pairs' stretches.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace pelton {

class SharedItems {
  public:
    // Items 0..count, untaken. One thread, before any other takes one.
    void cut(std::int64_t count, int threads) {
        const std::size_t stretches = static_cast<std::size_t>((threads + 1) / 2);
        if (stretches_.size() != stretches) stretches_ = std::vector<Stretch>(stretches);
        for (int s = 0; s < static_cast<int>(stretches); ++s) {
            Stretch& stretch = stretches_[static_cast<std::size_t>(s)];
            stretch.begin = count * (2 * s) / threads;
            stretch.end = count * std::min(2 * s + 2, threads) / threads;
            stretch.taken.store(0, std::memory_order_relaxed);
        }
    }

    // Calls visit(item, next) for items that nobody else gets until none are left; `next` is what would
    // follow, or the item itself.
    template <typename Visit>
    void for_items(int part, const Visit& visit) {
        const std::size_t own = static_cast<std::size_t>(part / 2);
        const int step = part % 2 == 0 ? 1 : -1;
        for (std::size_t k = 0; k < stretches_.size(); ++k) {
            Stretch& stretch = stretches_[(own + k) % stretches_.size()];
            for (std::int64_t i = stretch.take(step); i >= 0; i = stretch.take(step)) {
                const std::int64_t next = i + step;
                visit(i, next >= stretch.begin && next < stretch.end ? next : i);
            }
        }
    }

  private:
    struct alignas(64) Stretch {
        std::int64_t begin = 0, end = 0;
        std::atomic<std::uint64_t> taken{0};  // from the front in the low half, from the back in the high one

        // -1 when none is left.
        std::int64_t take(int step) noexcept {
            std::uint64_t before = taken.load(std::memory_order_relaxed);
            for (;;) {
                const std::int64_t front = static_cast<std::uint32_t>(before), back = before >> 32;
                if (front + back >= end - begin) return -1;
                const std::uint64_t one = step > 0 ? 1 : std::uint64_t{1} << 32;
                if (taken.compare_exchange_weak(before, before + one, std::memory_order_relaxed))
                    return step > 0 ? begin + front : end - 1 - back;
            }
        }
    };

    std::vector<Stretch> stretches_;
};

}  // namespace pelton
