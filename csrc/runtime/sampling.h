// Tokens from rows of logits, each row by itself: the most likely one, or one drawn after temperature, min-p,
// top-k and top-p. The definition is pelton/decode/sampler.py; this gives the same tokens.
//
// No row is sorted. Kept tokens are found by partitions (nth_element), and because weights are whole numbers
// (kernels/sample.h) their sums are exact, so a top-p set and a draw are the same in whatever order they were
// found.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/table.h"

namespace pelton {

// How one row's token is chosen.
struct RowChoice {
    std::int64_t row;
    float temperature;       // 0: the most likely
    double log_min_p;        // -infinity: off
    std::int64_t top_k;      // 0: off
    double top_p, random;    // 1: off; in [0, 1)
    std::int32_t token = 0;  // the answer; -1 where the logits leave nothing to choose from
};

struct LogitRows {
    const float* data;
    std::int64_t count, width;
};

class RowSampler {
  public:
    RowSampler(std::shared_ptr<ThreadPool> pool, const KernelTable& kernels);
    // Fills in the tokens, rows shared out over the team. Throws Error(kInvalidArgument).
    void choose(const LogitRows& logits, std::vector<RowChoice>& choices);

  private:
    struct Candidate {
        std::uint64_t key;  // by value, the largest first, then by id
        std::int64_t weight;
        std::int32_t id() const noexcept { return static_cast<std::int32_t>(key & 0xffffffffu); }
        bool operator<(const Candidate& other) const noexcept { return key < other.key; }
    };
    using Candidates = std::vector<Candidate>;
    struct Scratch {
        Candidates kept, bucket;
        std::vector<std::int64_t> block_sums;
    };
    // A row as a choice shapes it: tokens below `lowest` are refused.
    struct Row {
        const float* logits;
        std::int64_t width;
        float temperature, lowest, peak;  // lowest and peak of logits / temperature
    };
    std::int32_t choose_row(const float* logits, std::int64_t width, const RowChoice& choice,
                            Scratch& scratch) const;
    static std::int64_t fewest_with(Candidates& candidates, std::int64_t need);
    static std::int32_t draw_unordered(Candidates& kept, std::int64_t target);
    static std::int32_t draw_in_order(const Candidates& kept, std::int64_t target);
    static std::int64_t keep_mass(const Row& row, std::int64_t need, Scratch& scratch);
    std::int64_t sum_blocks(const Row& row, Scratch& scratch) const;
    std::int32_t draw_from_all(const Row& row, double random, Scratch& scratch) const;
    void append_reaching(const Row& row, std::int64_t start, Candidates& found) const;
    void collect_reaching(const Row& row, Candidates& found) const;
    void collect_top(Row row, std::int64_t count, Candidates& found) const;
    std::int64_t weigh(const Row& row, Candidates& found) const;

    std::shared_ptr<ThreadPool> pool_;
    const SampleKernels* kernels_;
    std::vector<Scratch> scratch_;
    std::mutex mutex_;
};

}  // namespace pelton
