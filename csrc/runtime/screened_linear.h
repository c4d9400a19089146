// The product with the output head, of whose rows nobody may want more than where their greatest entry is.
#pragma once

#include <memory>
#include <vector>

#include "core/head_screen.h"
#include "runtime/greatest.h"
#include "runtime/linear_instructions.h"

namespace pelton {

// Passes that want the greatest logits only (Frame::only_greatest) find their places. Of few rows every logit
// that may be the greatest is what LinearInstruction computes, and the others are -infinity; many rows are
// multiplied in pieces that stay in the cache and are not stored. Other passes are a LinearInstruction's.
class ScreenedLinearInstruction : public Instruction {
  public:
    ScreenedLinearInstruction(LinearInput input, Weight weight, int output,
                              std::shared_ptr<HeadScreen> screen);
    void check(const ValueCheck& values) const override { whole_.check(values); }
    void prepare(const Frame& frame) override;
    void start(const Frame& frame) override { whole_.start(frame); }
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return whole_.name(); }
    bool row_wise() const noexcept override { return false; }
    // After a pass that wants the greatest only: of each row its place, -1 where one logit is NaN or none is
    // above -infinity.
    std::vector<std::int32_t> greatest() const;

  private:
    // What bounds the error of a row's coarse products: that of output i is coefficient * residual i + base.
    struct Bound {
        float coefficient, base;
    };
    struct alignas(64) Scratch {
        std::vector<ActivationBlock> blocks;  // [rows, K / 32 + 1] of x and y
        std::vector<float> inputs;            // x as the blocks hold it, [K]
        std::vector<Bound> bounds;            // [rows]
        std::vector<float> reached;           // [rows] the greatest exact product of a panel of this thread's
        std::vector<std::int64_t> panels;     // candidates
        std::vector<Greatest> greatest;       // [rows] in what this thread multiplied
        std::int64_t exact = 0;               // panels multiplied exactly in this pass
    };
    void sample(const Frame& frame, int thread) const;
    void round_row(const Frame& frame, std::int64_t row, int thread) const;
    Bound bound(const Frame& frame, std::int64_t row, int thread) const;
    LinearCall exact_call(const Frame& frame, int thread) const;
    void multiply(const Frame& frame, const LinearRange& range, int thread) const;
    void look_at_panel(const Frame& frame, std::int64_t panel, std::int64_t row, int thread) const;
    void find_candidates(const Frame& frame, std::int64_t row, RowRange panels, int thread) const;
    void multiply_coarsely(const Frame& frame, RowRange panels, int thread) const;
    void reach(const Frame& frame, std::int64_t row, RowRange panels, int thread) const;
    void run_screened(const Frame& frame, int thread) const;
    void run_in_pieces(const Frame& frame, int thread) const;

    LinearInstruction whole_;
    LinearInput input_;
    Weight weight_;
    int output_;
    std::shared_ptr<HeadScreen> screen_;
    bool applies_ = false, samples_ = false;  // in this pass
    mutable std::vector<Scratch> scratch_;    // of each thread
};

}  // namespace pelton
