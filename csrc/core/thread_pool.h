// A fixed team of threads that runs one function at a time, with barriers inside the function.
//
// The intended use is one `run` for a whole stretch of work, cut into `steps`: going from one to the next
// costs under 2 microseconds while all threads are awake, a `run` wakes sleepers. Waiting spins, after 30
// microseconds lets others run in between, and sleeps after about 1000; with more threads than processors it
// sleeps at once.
//
// fork(): a child process has none of the workers; `run` in it throws. Create the pool in the child instead.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "core/thread_places.h"

namespace pelton {

// What can be done at any time and in small pieces, so that it holds up nobody.
class IdleWork {
  public:
    virtual ~IdleWork() = default;
    // The next piece, some microseconds; false when there is nothing to do. Called by one thread at a time.
    virtual bool do_some() noexcept = 0;
};

class ThreadPool {
  public:
    using Function = void (*)(void* context, int thread_id);

    // `num_threads` (1..1024) counts the caller of `run`; one thread starts no worker. Between two jobs the
    // first worker does `idle` work, unless the threads are more than the processors.
    explicit ThreadPool(int num_threads, std::shared_ptr<IdleWork> idle = nullptr);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int num_threads() const noexcept { return num_threads_; }

    // Throws Error(kUnsupported) in a child of the process that made the pool.
    void check_process() const;

    // Calls function(context, id) for id 0..num_threads-1, id 0 on the caller, and returns when all have. All
    // calls run in the standard floating-point mode, whatever the caller's.
    // Calls from several threads take turns; a call from inside `function` throws. The first exception of any
    // thread is rethrown here; the others are released from their barriers and leave early.
    void run(Function function, void* context);

    // run([&](int thread_id) { ... })
    template <typename Callable>
    void run(Callable&& callable) {
        using Plain = std::remove_reference_t<Callable>;
        run([](void* context, int thread_id) { (*static_cast<Plain*>(context))(thread_id); }, &callable);
    }

    // Inside `run` only, once, by every thread of the team: function(step, part) for steps 0 .. count - 1,
    // each cut into num_threads() parts. A step begins when all parts of the one before have ended, and sees
    // what they wrote. A thread does the part of its own number, and after a while those that nobody has
    // begun: a team-mate that another program keeps from running holds up nobody, as long as it is in the
    // middle of no part. Parts may meet at barrier(), as each is then on a thread of its own.
    template <typename Callable>
    void steps(std::uint32_t count, int thread_id, Callable&& function) {
        for (;;) {
            if (spin_) places_.look(thread_id);
            const std::uint32_t step = step_.load();
            if (failed_.load()) throw Abandoned{};
            if (step >= count) return;
            take(step, thread_id, function);
            if (num_threads_ > 1 && !changes_soon(step_, step))
                for (int k = 1; k < num_threads_; ++k) take(step, (thread_id + k) % num_threads_, function);
            wait_for_change(step_, step);
        }
    }

    // Inside `run` only, by every thread of the team: returns when all have arrived, and what each wrote
    // before is visible to all after. When another thread threw, it throws to leave the function.
    void barrier();

  private:
    struct Abandoned {};  // unwinds a thread whose team-mate threw; never leaves `run`

    // How many steps of the job have a thread for this part.
    struct alignas(64) Claim {
        std::atomic<std::uint32_t> steps{0};
    };

    template <typename Callable>
    void take(std::uint32_t step, int part, Callable& function) {
        std::atomic<std::uint32_t>& claim = claims_[static_cast<std::size_t>(part)].steps;
        std::uint32_t unclaimed = step;
        if (claim.load() != step || !claim.compare_exchange_strong(unclaimed, step + 1)) return;
        function(step, part);
        if (ended_.fetch_add(1) + 1 != static_cast<std::uint32_t>(num_threads_)) return;
        ended_.store(0);
        publish(step_);
    }

    void work(int thread_id);
    void stop() noexcept;
    void call(Function function, void* context, int thread_id) noexcept;
    void wait_for_change(std::atomic<std::uint32_t>& word, std::uint32_t old) noexcept;
    bool changes_soon(const std::atomic<std::uint32_t>& word, std::uint32_t old) const noexcept;
    void publish(std::atomic<std::uint32_t>& word) noexcept;
    bool is_member(std::thread::id id) const noexcept;

    // Words that different threads write lie on different cache lines.
    alignas(64) std::atomic<std::uint32_t> arrived_{0};
    alignas(64) std::atomic<std::uint32_t> generation_{0};  // barriers passed
    alignas(64) std::atomic<std::uint32_t> step_{0};        // steps of the job that have ended
    alignas(64) std::atomic<std::uint32_t> ended_{0};       // parts of the present step that have
    alignas(64) std::atomic<std::uint32_t> job_{0};         // jobs started
    alignas(64) std::atomic<std::uint32_t> running_{0};     // workers still in the job
    alignas(64) std::atomic<std::uint32_t> finished_{0};    // jobs finished by all workers
    alignas(64) std::atomic<std::uint32_t> sleepers_{0};
    std::atomic<bool> failed_{false};
    std::atomic<bool> stopping_{false};
    std::atomic<std::thread::id> caller_{};

    const int num_threads_;
    const long process_id_;
    bool spin_;
    const std::shared_ptr<IdleWork> idle_;
    Function function_ = nullptr;
    void* context_ = nullptr;
    std::exception_ptr first_error_;
    std::mutex error_mutex_;
    std::mutex run_mutex_;
    std::vector<Claim> claims_;
    ThreadPlaces places_;
    std::vector<std::thread> workers_;
};

}  // namespace pelton
