// The feed-forward blocks of a mixture of experts: rows grouped by expert, results added in order of expert
// id.
#pragma once

#include "runtime/linear_instructions.h"

namespace pelton {

struct ExpertWeights {
    std::vector<Weight> gate, up, down;  // one an expert; all of one format each
};

// Scratch values, [rows, top_k * width]: one row for each pair of a row and one of its experts.
struct ExpertBuffers {
    int inputs, blocks;   // gathered input; either -1 as in LinearInput
    int hidden, rounded;  // [.., F] as floats, or as blocks if `down` is a block weight; the other one is -1
    int results;          // [.., W]
};

class ExpertInstruction : public Instruction {
  public:
    ExpertInstruction(LinearInput input, int routed, int output, ExpertWeights weights, ExpertBuffers buffers,
                      Activation activation, std::int64_t top_k);
    void check(const ValueCheck& values) const override;
    void prepare(const Frame& frame) override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "experts"; }
    bool row_wise() const noexcept override { return false; }

  private:
    struct Pair {
        std::int32_t row;
        float weight;
    };
    void check_weights(const ValueCheck& values, int row_set) const;
    void check_buffers(const ValueCheck& values, int row_set) const;
    void pair_up(const Frame& frame) const;
    void gather(const Frame& frame, int thread) const;
    void multiply(const Frame& frame, int thread, bool down) const;
    void combine(const Frame& frame, int thread) const;

    LinearInput input_;
    int routed_, output_;
    ExpertWeights weights_;
    ExpertBuffers buffers_;
    Activation activation_;
    std::int64_t top_k_;
    // Filled by thread 0 in every run, read by all after a barrier.
    mutable std::vector<Pair> pairs_;              // grouped by expert
    mutable std::vector<std::int64_t> starts_;     // of each expert in pairs_
    mutable std::vector<std::int64_t> next_;       // while filling: each expert's first free place
    mutable std::vector<std::int32_t> row_pairs_;  // [rows, top_k] pairs of a row by expert, -1 at the end
};

}  // namespace pelton
