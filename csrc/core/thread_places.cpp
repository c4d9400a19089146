#include "core/thread_places.h"

#if defined(__linux__)
#    include <sched.h>
#endif

namespace pelton {

#if defined(__linux__)

void ThreadPlaces::look(int id) noexcept {
    int here = sched_getcpu();
    if (here == place(id).load(std::memory_order_relaxed)) return;
    // Two that come to one processor at a time both see the other; they may leave for the same one, once.
    for (int tries = 0; tries < 3; ++tries) {
        place(id).store(here);
        if (!shares(id, here) || !part(id)) return;
        here = sched_getcpu();
    }
    place(id).store(here);
}

bool ThreadPlaces::shares(int id, int processor) noexcept {
    for (int other = 0; other < static_cast<int>(places_.size()); ++other)
        if (other != id && place(other).load() == processor) return true;
    return false;
}

// False where there is nowhere to go.
bool ThreadPlaces::part(int id) noexcept {
    cpu_set_t all;
    CPU_ZERO(&all);
    if (sched_getaffinity(0, sizeof all, &all) != 0) return false;
    cpu_set_t free = all;
    for (int other = 0; other < static_cast<int>(places_.size()); ++other) {
        const int taken = place(other).load();
        if (other != id && taken >= 0 && taken < CPU_SETSIZE) CPU_CLR(static_cast<std::size_t>(taken), &free);
    }
    if (CPU_COUNT(&free) == 0 || sched_setaffinity(0, sizeof free, &free) != 0) return false;
    sched_setaffinity(0, sizeof all, &all);
    return true;
}

#else

void ThreadPlaces::look(int) noexcept {}

#endif

}  // namespace pelton
