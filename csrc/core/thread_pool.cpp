#include "core/thread_pool.h"

#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <system_error>
#include <utility>

#include "core/cpu_features.h"
#include "core/errors.h"
#include "core/standard_floats.h"

#if defined(__x86_64__)
#    include <immintrin.h>
#endif

namespace pelton {

namespace {

using Clock = std::chrono::steady_clock;
// Long enough to outlast a short interruption of the other thread: on a busy machine 100 microseconds cost
// three times the tokens, because each of the 150 waits of a token then became a sleep and a wake-up.
constexpr auto kSpinTime = std::chrono::microseconds(1000);
// From then on others may have the processor: what is waited for may be a team-mate that another program
// keeps from running, and to spin on would hold up that program, which then holds up the team-mate. With one
// busy program on two processors: 115 tokens/s instead of 5.
constexpr auto kPatience = std::chrono::microseconds(30);

// Longer than threads that work side by side differ in most steps; shorter than the milliseconds for which
// another program takes a processor.
constexpr auto kStealTime = std::chrono::microseconds(10);

inline void pause() noexcept {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads, std::shared_ptr<IdleWork> idle)
    : num_threads_(num_threads),
      process_id_(getpid()),
      spin_(num_threads <= num_usable_processors()),
      idle_(std::move(idle)) {
    require(num_threads >= 1 && num_threads <= 1024, "a thread pool has 1 to 1024 threads");
    claims_ = std::vector<Claim>(static_cast<std::size_t>(num_threads));
    places_ = ThreadPlaces(num_threads);
    workers_.reserve(static_cast<std::size_t>(num_threads - 1));
    try {
        for (int id = 1; id < num_threads; ++id) workers_.emplace_back([this, id] { work(id); });
    } catch (const std::system_error& error) {
        stop();
        throw Error(ErrorKind::kUnsupported, std::string("cannot start a worker thread: ") + error.what());
    }
}

ThreadPool::~ThreadPool() {
    if (getpid() == process_id_) {
        stop();
    } else {
        for (std::thread& worker : workers_) worker.detach();  // after fork there are no threads to join
    }
}

void ThreadPool::stop() noexcept {
    stopping_.store(true);
    publish(job_);
    for (std::thread& worker : workers_) worker.join();
}

bool ThreadPool::is_member(std::thread::id id) const noexcept {
    if (caller_.load() == id) return true;
    for (const std::thread& worker : workers_)
        if (worker.get_id() == id) return true;
    return false;
}

void ThreadPool::check_process() const {
    if (getpid() != process_id_)
        throw Error(ErrorKind::kUnsupported, "this thread pool belongs to the process before fork()");
}

void ThreadPool::run(Function function, void* context) {
    check_process();
    if (is_member(std::this_thread::get_id()))
        throw Error(ErrorKind::kInvalidArgument, "ThreadPool::run was called from inside its own function");
    std::lock_guard<std::mutex> one_job_at_a_time(run_mutex_);
    caller_.store(std::this_thread::get_id());
    function_ = function;
    context_ = context;
    if (num_threads_ > 1) {
        running_.store(static_cast<std::uint32_t>(num_threads_ - 1));
        const std::uint32_t before = finished_.load();
        publish(job_);
        call(function, context, 0);
        while (finished_.load() == before) wait_for_change(finished_, before);
    } else {
        call(function, context, 0);
    }
    arrived_.store(0);
    step_.store(0);
    ended_.store(0);
    for (Claim& claim : claims_) claim.steps.store(0);
    failed_.store(false);
    caller_.store(std::thread::id{});
    if (first_error_) std::rethrow_exception(std::exchange(first_error_, nullptr));
}

void ThreadPool::work(int thread_id) {
    std::uint32_t seen = 0;
    const bool fills_pauses = idle_ && spin_ && thread_id == 1;
    for (;;) {
        while (fills_pauses && job_.load() == seen && idle_->do_some()) {
        }
        wait_for_change(job_, seen);
        seen += 1;  // `run` starts a job only after the last one finished, so none is skipped
        if (stopping_.load()) return;
        call(function_, context_, thread_id);
        if (running_.fetch_sub(1) == 1) publish(finished_);
    }
}

void ThreadPool::call(Function function, void* context, int thread_id) noexcept {
    const StandardFloats floats;
    if (spin_) places_.look(thread_id);
    try {
        function(context, thread_id);
    } catch (const Abandoned&) {
    } catch (...) {
        {
            std::lock_guard<std::mutex> lock(error_mutex_);
            if (!first_error_) first_error_ = std::current_exception();
        }
        failed_.store(true);
        publish(generation_);  // those who wait for this thread at a barrier
        publish(step_);        // or for the end of a step
    }
    places_.leave(thread_id);
}

void ThreadPool::barrier() {
    if (num_threads_ == 1) return;
    const std::uint32_t generation = generation_.load();
    if (failed_.load()) throw Abandoned{};
    if (arrived_.fetch_add(1) + 1 == static_cast<std::uint32_t>(num_threads_)) {
        arrived_.store(0);
        publish(generation_);
    } else {
        wait_for_change(generation_, generation);
    }
    if (failed_.load()) throw Abandoned{};
}

void ThreadPool::publish(std::atomic<std::uint32_t>& word) noexcept {
    word.fetch_add(1);
    // A sleeper counts itself before it looks at the word a last time, so one of the two sees the other.
    if (sleepers_.load() > 0) word.notify_all();
}

bool ThreadPool::changes_soon(const std::atomic<std::uint32_t>& word, std::uint32_t old) const noexcept {
    if (!spin_) return word.load() != old;
    Clock::time_point deadline{};
    for (;;) {
        for (int i = 0; i < 32; ++i) {
            if (word.load(std::memory_order_acquire) != old) return true;
            pause();
        }
        const Clock::time_point now = Clock::now();
        if (deadline == Clock::time_point{}) deadline = now + kStealTime;
        if (now >= deadline) return false;
    }
}

void ThreadPool::wait_for_change(std::atomic<std::uint32_t>& word, std::uint32_t old) noexcept {
    if (spin_) {
        Clock::time_point now{}, patience{}, deadline{};
        do {
            for (int i = 0; i < 32; ++i) {
                if (word.load(std::memory_order_acquire) != old) return;
                pause();
            }
            now = Clock::now();
            if (deadline == Clock::time_point{}) {
                patience = now + kPatience;
                deadline = now + kSpinTime;
            }
            if (now > patience) sched_yield();
        } while (now < deadline);
    }
    sleepers_.fetch_add(1);
    word.wait(old);
    sleepers_.fetch_sub(1);
}

}  // namespace pelton
