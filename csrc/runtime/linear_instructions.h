// Instructions that multiply by weight matrices; the team shares each product's outputs and rows.
#pragma once

#include <memory>
#include <vector>

#include "core/packed_weight.h"
#include "runtime/row_instructions.h"
#include "runtime/shared_pieces.h"

namespace pelton {

using Weight = std::shared_ptr<const PackedWeight>;

// What a product reads: rows as floats (x) and as 8-bit blocks, or pairs if the weights are in pairs; either
// -1 when no weight wants it.
struct LinearInput {
    int x, blocks;
    bool fine = false;  // the blocks are
};

// That `weight` can read the input, of that row set, in the form it wants.
void check_input(const ValueCheck& values, const LinearInput& input, const PackedWeight& weight, int row_set);

struct LinearPart {
    Weight weight;
    Vector bias;
    int output;
};

// Several products of one input. With `residual` >= 0 the (only) output is residual + product.
class LinearInstruction : public Instruction {
  public:
    LinearInstruction(LinearInput input, std::vector<LinearPart> parts, int residual);
    void check(const ValueCheck& values) const override;
    void start(const Frame& frame) override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return residual_ >= 0 ? "linear_add" : "linear"; }
    bool row_wise() const noexcept override { return false; }
    int reusable_input() const noexcept override { return residual_; }
    // Of this pass, for who runs the product in its stead.
    SharedPieces& pieces() const noexcept { return pieces_; }

  private:
    // Panels are counted through all parts.
    void run_range(const Frame& frame, const LinearRange& range, std::int64_t next_panel, int thread) const;
    void run_part(const Frame& frame, const LinearPart& part, const LinearRange& range,
                  const std::uint8_t* then, int thread) const;
    LinearInput input_;
    std::vector<LinearPart> parts_;
    int residual_;
    std::int64_t num_panels_ = 0;
    mutable SharedPieces pieces_;
};

// activation(x gate^T) * (x up^T) for a rectangle of rows and panels, in pieces that stay in the cache.
// Either of `outputs` and `quantized`, which gets them rounded, may be null: 512 rows of a 135M model gain 2
// % where nobody reads the floats.
struct GatedCall {
    const KernelTable* kernels;
    const PackedWeight *gate, *up;
    const void* blocks;  // what the weights want, ActivationBlock or ActivationPair
    const float* inputs;
    float* outputs;   // [rows, gate outputs]
    void* quantized;  // ActivationPair if there is a segment, else ActivationBlock
    int segment;      // of pairs, 0: to blocks
    Activation activation;
    WeightReading reading;
    ReadAhead* ahead = nullptr;  // see LinearCall
};
void run_gated(const GatedCall& call, const LinearRange& range);
// Panels that are not parted, so that blocks, or segments of pairs, of outputs stay whole.
constexpr std::int64_t whole_panels(int segment) {
    return (segment > 0 ? segment * kPairInputs : kBlockInputs) / kPanelOutputs;
}
// A thread's part of `rows` rows, cut at multiples of `whole` panels.
LinearRange gated_share(const PackedWeight& gate, std::int64_t whole, std::int64_t rows, int thread,
                        int num_threads);

class GatedLinearInstruction : public Instruction {
  public:
    // `quantized` is -1 when nobody reads the output as blocks (or pairs, `segment` of them, 1 or 2, to a
    // unit), `output` when nobody reads it otherwise.
    GatedLinearInstruction(LinearInput input, Weight gate, Weight up, Activation activation, int output,
                           int quantized, int segment);
    void check(const ValueCheck& values) const override;
    void start(const Frame& frame) override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "gated_linear"; }
    bool row_wise() const noexcept override { return false; }

  private:
    LinearInput input_;
    Weight gate_, up_;
    Activation activation_;
    int output_, quantized_;
    int segment_;
    mutable SharedPieces pieces_;
};

}  // namespace pelton
