// The thread pool under ThreadSanitizer, without Python (which does not run under it): barriers, failing
// threads, steps whose parts others do, callers that take turns, work in pauses, threads that part. Built and
// named pool_check when PELTON_SANITIZE is set, run by .ci/sanitize; exit code 0 means no fault.
#if defined(__linux__)
#    include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "core/cpu_features.h"
#include "core/errors.h"
#include "core/thread_places.h"
#include "core/thread_pool.h"

using namespace pelton;

namespace {

// Ten barriers a job; every third job loses its last thread at the fifth. True when none was passed early.
bool barriers_hold(ThreadPool& pool) {
    std::vector<int> progress(static_cast<std::size_t>(pool.num_threads()));
    for (int job = 0; job < 200; ++job) {
        const bool fails = job % 3 == 0;
        bool caught = false;
        progress.assign(progress.size(), 0);
        try {
            pool.run([&](int thread_id) {
                for (int step = 1; step <= 10; ++step) {
                    require(!(fails && thread_id == pool.num_threads() - 1 && step == 5), "failed as asked");
                    progress[static_cast<std::size_t>(thread_id)] = step;
                    pool.barrier();
                    for (const int other : progress)
                        if (other != step) throw Error(ErrorKind::kPlan, "a barrier was passed early");
                    pool.barrier();
                }
            });
        } catch (const Error& error) {
            if (error.kind() == ErrorKind::kPlan) return false;
            caught = true;
        }
        if (caught != fails) return false;
    }
    return true;
}

// Every part of a step adds up what all parts of the step before wrote. Some threads come late to some steps,
// so that others do their parts; every third job loses a part in the middle.
bool steps_follow_each_other(ThreadPool& pool) {
    constexpr std::uint32_t kSteps = 40;
    const std::size_t parts = static_cast<std::size_t>(pool.num_threads());
    for (int job = 0; job < 100; ++job) {
        const bool fails = job % 3 == 0;
        std::vector<long> values[2] = {std::vector<long>(parts, 1), std::vector<long>(parts)};
        bool caught = false;
        try {
            pool.run([&](int thread_id) {
                if ((job + thread_id) % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
                pool.steps(kSteps, thread_id, [&](std::uint32_t step, int part) {
                    require(!(fails && step == 20 && part == 0), "failed as asked");
                    const std::vector<long>& before = values[step % 2];
                    const long most = *std::max_element(before.begin(), before.end());
                    if (most != *std::min_element(before.begin(), before.end())) std::abort();
                    values[(step + 1) % 2][static_cast<std::size_t>(part)] = most + 1;
                });
            });
        } catch (const Error&) {
            caught = true;
        }
        if (caught != fails) return false;
        for (const long value : values[kSteps % 2])
            if (!fails && value != kSteps + 1) return false;
    }
    return true;
}

// Counts how often it is asked; always has more to do.
class Counting : public IdleWork {
  public:
    bool do_some() noexcept override { return ++pieces_ % 1000 != 0; }
    long pieces() const noexcept { return pieces_; }

  private:
    std::atomic<long> pieces_{0};
};

bool callers_take_turns(ThreadPool& pool) {
    int runs = 0;
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 3; ++caller)
        callers.emplace_back([&] {
            for (int i = 0; i < 50; ++i)
                pool.run([&](int thread_id) {
                    pool.barrier();
                    if (thread_id == 0) ++runs;
                });
        });
    for (std::thread& caller : callers) caller.join();
    return runs == 150;
}

#if defined(__linux__)
// A thread that comes to a team-mate's processor leaves it, and may go everywhere afterwards. The system may
// move either just then, which a few of the rounds may say.
bool threads_part() {
    if (num_usable_processors() < 2) return true;
    int parted = 0;
    for (int round = 0; round < 50; ++round) {
        ThreadPlaces places(2);
        places.look(0);
        const int first = sched_getcpu();
        std::thread([&] {
            cpu_set_t all, there, after;
            sched_getaffinity(0, sizeof all, &all);
            CPU_ZERO(&there);
            CPU_SET(static_cast<std::size_t>(first), &there);
            sched_setaffinity(0, sizeof there, &there);
            sched_setaffinity(0, sizeof all, &all);
            places.look(1);
            sched_getaffinity(0, sizeof after, &after);
            parted += sched_getcpu() != first && CPU_EQUAL(&all, &after);
        }).join();
    }
    return parted >= 45;
}
#else
bool threads_part() { return true; }
#endif

}  // namespace

int main() {
    for (const int threads : {1, 2, 3, 8}) {
        const auto idle = std::make_shared<Counting>();
        ThreadPool pool(threads, idle);
        const bool holds = barriers_hold(pool) && steps_follow_each_other(pool) && callers_take_turns(pool);
        if (!holds || (threads == 1 && idle->pieces() > 0)) {
            std::fprintf(stderr, "the pool of %d threads is broken\n", threads);
            return 1;
        }
    }
    if (!threads_part()) {
        std::fprintf(stderr, "threads stay on one processor\n");
        return 1;
    }
    return 0;
}
