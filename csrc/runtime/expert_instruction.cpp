#include "runtime/expert_instruction.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/errors.h"
#include "core/partition.h"

namespace pelton {

namespace {

ActivationBlock* blocks_at(const Frame& frame, int value, int thread) {
    return value < 0 ? nullptr : reinterpret_cast<ActivationBlock*>(frame.value(value, thread));
}

}  // namespace

ExpertInstruction::ExpertInstruction(LinearInput input, int routed, int output, ExpertWeights weights,
                                     ExpertBuffers buffers, Activation activation, std::int64_t top_k)
    : input_(input),
      routed_(routed),
      output_(output),
      weights_(std::move(weights)),
      buffers_(buffers),
      activation_(activation),
      top_k_(top_k) {
    for (const int value : {input.x, input.blocks, routed})
        if (value >= 0) reads(value, false);
    for (const int value :
         {output, buffers.inputs, buffers.blocks, buffers.hidden, buffers.rounded, buffers.results})
        if (value >= 0) writes(value, false);
}

void ExpertInstruction::check(const ValueCheck& values) const {
    const int row_set = values.spec("the output", output_).row_set;
    const std::size_t count = weights_.gate.size();
    values.that(count > 0 && weights_.up.size() == count && weights_.down.size() == count,
                "every expert has a gate, an up and a down weight");
    values.that(top_k_ > 0 && top_k_ <= static_cast<std::int64_t>(count), "a row has 1 to all experts");
    values.shape("the routed weights", routed_, static_cast<std::int64_t>(count), row_set);
    check_weights(values, row_set);
    check_buffers(values, row_set);
}

void ExpertInstruction::check_weights(const ValueCheck& values, int row_set) const {
    for (const auto* list : {&weights_.gate, &weights_.up, &weights_.down})
        for (const Weight& weight : *list) {
            values.that(weight != nullptr, "a weight is missing");
            values.that(weight->layout().kind != WeightKind::kPairs, "weights of experts are not in pairs");
        }
    const PackedWeight& first = *weights_.gate.front();
    const LinearInput gathered{buffers_.inputs < 0 ? -1 : input_.x, buffers_.blocks < 0 ? -1 : input_.blocks};
    for (std::size_t e = 0; e < weights_.gate.size(); ++e) {
        for (const Weight& weight : {weights_.gate[e], weights_.up[e]}) {
            values.that(weight->outputs() == first.outputs(), "experts differ in shape");
            check_input(values, gathered, *weight, row_set);
        }
        const PackedWeight& down = *weights_.down[e];
        values.that(down.inputs() == first.outputs() && down.outputs() == first.inputs(),
                    "a down weight does not fit its gate");
        values.that(down.layout().kind != WeightKind::kBlock || buffers_.rounded >= 0,
                    "the rounded hidden values are missing");
        values.that(down.layout().kind == WeightKind::kBlock || buffers_.hidden >= 0,
                    "the hidden values are missing");
    }
    values.shape("the output", output_, first.inputs(), row_set);
}

void ExpertInstruction::check_buffers(const ValueCheck& values, int row_set) const {
    const std::int64_t hidden = weights_.gate.front()->outputs(), width = weights_.gate.front()->inputs();
    for (const auto& [source, target] :
         {std::pair{input_.x, buffers_.inputs}, std::pair{input_.blocks, buffers_.blocks}}) {
        if (target < 0) continue;
        const std::int64_t each = values.spec("the input", source).width;
        values.shape("the input", source, each, row_set);
        values.shape("the gathered input", target, each * top_k_, row_set);
    }
    if (buffers_.hidden >= 0) values.shape("the hidden values", buffers_.hidden, hidden * top_k_, row_set);
    values.shape("the results", buffers_.results, width * top_k_, row_set);
    if (buffers_.rounded < 0) return;
    values.that(hidden % kBlockInputs == 0, "activations are rounded in blocks of 32");
    values.blocks("the rounded hidden values", buffers_.rounded, hidden * top_k_, row_set);
}

void ExpertInstruction::prepare(const Frame& frame) {
    const std::size_t most = static_cast<std::size_t>(frame.rows(output_) * top_k_);
    pairs_.reserve(most);
    row_pairs_.resize(most);
    starts_.resize(weights_.gate.size() + 1);
    next_.resize(weights_.gate.size() + 1);
}

// Counts each expert's rows, then gives every pair its place: two walks along the rows, as they lie in
// memory.
void ExpertInstruction::pair_up(const Frame& frame) const {
    const std::int64_t rows = frame.rows(output_), experts = frame.width(routed_);
    const float* routed = frame.value(routed_, 0);
    std::fill(row_pairs_.begin(), row_pairs_.end(), -1);
    std::fill(starts_.begin(), starts_.end(), 0);
    for (std::int64_t row = 0; row < rows; ++row) {
        std::int64_t used = 0;
        for (std::int64_t expert = 0; expert < experts; ++expert) {
            if (routed[row * experts + expert] == 0.0f) continue;
            require(used < top_k_, "a row is routed to more experts than top_k");
            row_pairs_[row * top_k_ + used++] = static_cast<std::int32_t>(expert);
            ++starts_[expert + 1];
        }
    }
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
    next_ = starts_;
    pairs_.resize(static_cast<std::size_t>(starts_.back()));
    for (std::int64_t at = 0; at < rows * top_k_; ++at) {
        const std::int64_t expert = row_pairs_[at], row = at / top_k_;
        if (expert < 0) continue;
        const std::int64_t place = next_[expert]++;
        pairs_[place] = {static_cast<std::int32_t>(row), routed[row * experts + expert]};
        row_pairs_[at] = static_cast<std::int32_t>(place);
    }
}

void ExpertInstruction::gather(const Frame& frame, int thread) const {
    const RowRange own =
        share_of(static_cast<std::int64_t>(pairs_.size()), thread, frame.pool->num_threads());
    const int sources[2] = {input_.x, input_.blocks}, targets[2] = {buffers_.inputs, buffers_.blocks};
    for (int kind = 0; kind < 2; ++kind) {
        if (targets[kind] < 0) continue;
        const std::int64_t width = frame.width(sources[kind]);
        for (std::int64_t i = own.begin; i < own.end; ++i)
            std::memcpy(frame.value(targets[kind], thread) + i * width,
                        frame.value(sources[kind], thread) + pairs_[i].row * width,
                        static_cast<std::size_t>(width) * sizeof(float));
    }
}

// Gate and up, or down, of every expert's rows.
void ExpertInstruction::multiply(const Frame& frame, int thread, bool down) const {
    const int threads = frame.pool->num_threads();
    for (std::size_t e = 0; e < weights_.gate.size(); ++e) {
        const std::int64_t start = starts_[e], rows = starts_[e + 1] - start;
        if (rows == 0) continue;
        const PackedWeight& gate = *weights_.gate[e];
        const std::int64_t width = gate.inputs(), hidden = gate.outputs();
        float* middle = buffers_.hidden < 0 ? nullptr : frame.value(buffers_.hidden, thread) + start * hidden;
        ActivationBlock* rounded = blocks_at(frame, buffers_.rounded, thread);
        if (rounded != nullptr) rounded += start * hidden / kBlockInputs;
        if (down) {
            const LinearCall call{weights_.down[e]->view(),
                                  rounded,
                                  middle,
                                  hidden,
                                  frame.value(buffers_.results, thread) + start * width,
                                  width,
                                  nullptr,
                                  false,
                                  false,
                                  frame.readings.of(rows)};
            frame.kernels->linear.linear(call,
                                         linear_share(weights_.down[e]->num_panels(), rows, thread, threads));
            continue;
        }
        const ActivationBlock* blocks = blocks_at(frame, buffers_.blocks, thread);
        const float* inputs =
            buffers_.inputs < 0 ? nullptr : frame.value(buffers_.inputs, thread) + start * width;
        run_gated({frame.kernels, &gate, weights_.up[e].get(),
                   blocks == nullptr ? nullptr : blocks + start * width / kBlockInputs, inputs, middle,
                   rounded, 0, activation_, frame.readings.of(rows)},
                  gated_share(gate, whole_panels(0), rows, thread, threads));
    }
}

void ExpertInstruction::combine(const Frame& frame, int thread) const {
    const RowRange own = share_of(frame.rows(output_), thread, frame.pool->num_threads());
    const std::int64_t width = frame.width(output_);
    const float* results = frame.value(buffers_.results, thread);
    for (std::int64_t row = own.begin; row < own.end; ++row) {
        float* y = frame.value(output_, thread) + row * width;
        std::fill(y, y + width, 0.0f);
        for (std::int64_t k = 0; k < top_k_ && row_pairs_[row * top_k_ + k] >= 0; ++k) {
            const std::int64_t pair = row_pairs_[row * top_k_ + k];
            frame.kernels->elementwise.accumulate(results + pair * width, pairs_[pair].weight, y, width);
        }
    }
}

void ExpertInstruction::run(const Frame& frame, int thread) const {
    if (frame.rows(output_) == 0) return;
    if (thread == 0) pair_up(frame);
    frame.meet(thread);
    gather(frame, thread);
    frame.meet(thread);
    multiply(frame, thread, false);
    frame.meet(thread);
    multiply(frame, thread, true);
    frame.meet(thread);
    combine(frame, thread);
}

}  // namespace pelton
