// The thread pool under ThreadSanitizer, without Python (which does not run under it): barriers, failing threads,
// callers that take turns. Built and named pool_check when PELTON_SANITIZE is set; exit code 0 means no fault.
#include <cstdio>
#include <thread>
#include <vector>

#include "core/errors.h"
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

}  // namespace

int main() {
    for (const int threads : {1, 2, 3, 8}) {
        ThreadPool pool(threads);
        if (!barriers_hold(pool) || !callers_take_turns(pool)) {
            std::fprintf(stderr, "the pool of %d threads is broken\n", threads);
            return 1;
        }
    }
    return 0;
}
