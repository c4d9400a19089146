// The processors that the threads of a team run on: each one of its own, as long as there are enough.
//
// Linux may start or wake a thread on the processor of the one that did so, and take a tenth of a second to
// notice that another one has nothing to do. Two threads that never sleep have half of the speed until then:
// 30 teams of two on an idle machine, for 90 ms each, lost 160 ms in all so, and 94 with what is done here. A
// thread that finds itself where a team-mate is leaves by asking for the other processors, and then allows
// itself all again.
#pragma once

#include <atomic>
#include <cstddef>
#include <vector>

namespace pelton {

class ThreadPlaces {
  public:
    ThreadPlaces() = default;
    explicit ThreadPlaces(int num_threads) : places_(static_cast<std::size_t>(num_threads)) {}

    // By thread `id` itself, between two pieces of work: some nanoseconds if it is where it was.
    void look(int id) noexcept;
    // Thread `id` has nothing to do.
    void leave(int id) noexcept { place(id).store(kNowhere, std::memory_order_relaxed); }

  private:
    static constexpr int kNowhere = -1;
    struct alignas(64) Place {
        std::atomic<int> processor{kNowhere};
    };

    std::atomic<int>& place(int id) noexcept { return places_[static_cast<std::size_t>(id)].processor; }
    bool shares(int id, int processor) noexcept;
    bool part(int id) noexcept;

    std::vector<Place> places_;
};

}  // namespace pelton
