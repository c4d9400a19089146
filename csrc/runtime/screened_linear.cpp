#include "runtime/screened_linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "core/norms.h"
#include "core/partition.h"

namespace pelton {

namespace {

// More rows read the head at the multipliers' speed, not the memory's.
constexpr std::int64_t kScreenedRows = 4;

// More than sums lose where factors are so small that products vanish.
constexpr double kUnderflow = 1e-30;

void widen(const ActivationBlock* blocks, std::int64_t count, float* x) {
    for (std::int64_t b = 0; b < count; ++b)
        for (int i = 0; i < kBlockInputs; ++i)
            *x++ = blocks[b].scales[i / 16] * static_cast<float>(blocks[b].codes[i]);
}

bool holds_blocks(const PackedWeight& weight) { return weight.layout().kind == WeightKind::kBlock; }

void prefetch_panel(const WeightView& weight, std::int64_t panel, bool keep) {
    const std::uint8_t* from = weight.data + panel * weight.panel_bytes;
    for (std::int64_t line = 0; line < weight.panel_bytes; line += 64) {
        if (keep)
            __builtin_prefetch(from + line, 0, 2);
        else
            __builtin_prefetch(from + line, 0, 0);
    }
}

}  // namespace

ScreenedLinearInstruction::ScreenedLinearInstruction(LinearInput input, Weight weight, int output,
                                                     std::shared_ptr<HeadScreen> screen)
    : whole_(input, {LinearPart{weight, {}, output}}, -1),
      input_(input),
      weight_(std::move(weight)),
      output_(output),
      screen_(std::move(screen)) {
    if (input.x >= 0) reads(input.x, false);
    if (input.blocks >= 0) reads(input.blocks, false);
    writes(output, false);
}

void ScreenedLinearInstruction::prepare(const Frame& frame) {
    const std::int64_t rows = frame.rows(output_), inputs = weight_->inputs();
    std::int64_t exact = 0;
    for (Scratch& scratch : scratch_) exact += std::exchange(scratch.exact, 0);
    if (applies_)
        screen_->report(exact, weight_->num_panels() * static_cast<std::int64_t>(scratch_[0].bounds.size()));
    const bool wanted = frame.only_greatest && screen_->is_on() && rows > 0 && rows <= kScreenedRows;
    applies_ = wanted && screen_->ready();
    samples_ = wanted && screen_->num_samples() < kScreenSamples;
    if (wanted && !applies_) screen_->report(0, 0);
    if (!frame.only_greatest) return;
    scratch_.resize(static_cast<std::size_t>(frame.pool->num_threads()));
    for (Scratch& scratch : scratch_) {
        scratch.greatest.assign(static_cast<std::size_t>(rows), {});
        if (!applies_ && !samples_) continue;
        scratch.blocks.resize(static_cast<std::size_t>(rows * (inputs / kBlockInputs + 1)));
        scratch.inputs.resize(static_cast<std::size_t>(inputs));
        scratch.bounds.resize(static_cast<std::size_t>(rows));
        scratch.reached.resize(static_cast<std::size_t>(rows));
    }
}

// The row's own blocks, or for a head of floats its inputs rounded to them, behind which there is room for
// one more; and both as floats.
void ScreenedLinearInstruction::round_row(const Frame& frame, std::int64_t row, int thread) const {
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    const std::int64_t inputs = weight_->inputs(), count = inputs / kBlockInputs;
    ActivationBlock* blocks = scratch.blocks.data() + row * (count + 1);
    if (holds_blocks(*weight_)) {
        const auto* own = reinterpret_cast<const ActivationBlock*>(frame.value(input_.blocks, thread));
        std::copy_n(own + row * count, count, blocks);
    } else {
        frame.kernels->linear.quantize(frame.value(input_.x, thread) + row * inputs, inputs, inputs, true,
                                       blocks, 0, count);
    }
    widen(blocks, count, scratch.inputs.data());
}

void ScreenedLinearInstruction::sample(const Frame& frame, int thread) const {
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    for (std::int64_t row = 0; row < frame.rows(output_); ++row) {
        round_row(frame, row, thread);
        screen_->add_sample(scratch.inputs.data());
    }
}

// Appends the rounded y to the row's blocks. Beside what head_screen.h says there is what rounding y and, of
// a head of floats, x loses; a bfloat16 head's inputs are rounded to bfloat16 on some levels; and the
// rounding of the sums, here and in the exact product: less than 2^-23 of the factors' norms for each of
// their terms.
ScreenedLinearInstruction::Bound ScreenedLinearInstruction::bound(const Frame& frame, std::int64_t row,
                                                                  int thread) const {
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    const std::int64_t inputs = weight_->inputs(), count = inputs / kBlockInputs;
    const float* x = scratch.inputs.data();
    float y[kScreenDirections], rounded[kScreenDirections];
    LinearCall call{};
    call.weight = screen_->directions().view();
    call.inputs = x;
    call.input_stride = inputs;
    call.outputs = y;
    call.output_stride = kScreenDirections;
    frame.kernels->linear.linear(call, {0, screen_->directions().num_panels(), 0, 1});
    ActivationBlock* last = scratch.blocks.data() + row * (count + 1) + count;
    frame.kernels->linear.quantize(y, kScreenDirections, kScreenDirections, true, last, 0, 1);
    widen(last, 1, rounded);
    const HeadScreen::Norms& largest = screen_->largest();
    const double all = norm(x, inputs), along = norm(y, kScreenDirections);
    // Directions are orthonormal, and y exact, to far less than a hundredth of x.
    const double across = std::sqrt(std::max(all * all - along * along, 0.0) + 1e-4 * all * all);
    double base =
        1.01 * (largest.rounding * along + largest.correction * distance(y, rounded, kScreenDirections));
    if (!holds_blocks(*weight_)) {
        const float* own = frame.value(input_.x, thread) + row * inputs;
        base += largest.head * (1.01 * distance(own, x, inputs) + norm(own, inputs) / 256);
    }
    const double sums = static_cast<double>(inputs + 64) * std::numeric_limits<float>::epsilon();
    base += sums * (largest.head + 2 * largest.copy) * (all + along) + kUnderflow;
    return {static_cast<float>(1.001 * across), static_cast<float>(base)};
}

// Exact products: what LinearInstruction does.
LinearCall ScreenedLinearInstruction::exact_call(const Frame& frame, int thread) const {
    LinearCall call{};
    call.weight = weight_->view();
    if (holds_blocks(*weight_)) {
        call.blocks = reinterpret_cast<const ActivationBlock*>(frame.value(input_.blocks, thread));
    } else {
        call.inputs = frame.value(input_.x, thread);
    }
    call.input_stride = weight_->inputs();
    call.fine = input_.fine;
    call.reading = frame.readings.of(frame.rows(output_));
    return call;
}

void ScreenedLinearInstruction::multiply(const Frame& frame, const LinearRange& range, int thread) const {
    LinearCall call = exact_call(frame, thread);
    call.outputs = frame.value(output_, thread);
    call.output_stride = weight_->outputs();
    call.reading.ahead = 64;  // the panel was asked for as a whole
    frame.kernels->linear.linear(call, range);
}

void ScreenedLinearInstruction::multiply_coarsely(const Frame& frame, RowRange panels, int thread) const {
    LinearCall call{};
    call.weight = screen_->copy().view();
    call.blocks = scratch_[static_cast<std::size_t>(thread)].blocks.data();
    call.outputs = frame.value(output_, thread);
    call.output_stride = weight_->outputs();
    call.fine = true;
    call.reading = frame.readings.of(frame.rows(output_));
    frame.kernels->linear.linear(call, {panels.begin, panels.end, 0, frame.rows(output_)});
}

// The exact products of the panel that looks best among this thread's: what an output has to exceed.
void ScreenedLinearInstruction::reach(const Frame& frame, std::int64_t row, RowRange panels,
                                      int thread) const {
    float& reached = scratch_[static_cast<std::size_t>(thread)].reached[static_cast<std::size_t>(row)];
    reached = -std::numeric_limits<float>::infinity();
    if (panels.size() == 0) return;
    const std::int64_t width = weight_->outputs(), first = panels.begin * kPanelOutputs;
    float* own = frame.value(output_, thread) + row * width;
    const std::int64_t end = std::min(panels.end * kPanelOutputs, width);
    const std::int64_t best = frame.kernels->sample.most_likely(own + first, end - first);  // -1: a NaN
    const std::int64_t panel = panels.begin + std::max<std::int64_t>(best, 0) / kPanelOutputs;
    const std::int64_t column = panel * kPanelOutputs,
                       count = std::min<std::int64_t>(kPanelOutputs, width - column);
    float coarse[kPanelOutputs];
    std::copy_n(own + column, count, coarse);
    multiply(frame, {panel, panel + 1, row, row + 1}, thread);
    for (std::int64_t i = 0; i < count; ++i) reached = std::max(reached, own[column + i]);
    std::copy_n(coarse, count, own + column);
}

void ScreenedLinearInstruction::run(const Frame& frame, int thread) const {
    if (!frame.only_greatest) return whole_.run(frame, thread);
    if (applies_) return run_screened(frame, thread);
    run_in_pieces(frame, thread);
    if (samples_ && thread == 0) sample(frame, thread);
}

void ScreenedLinearInstruction::run_in_pieces(const Frame& frame, int thread) const {
    alignas(64) float sums[kPieceRows * kPieceColumns];
    std::vector<Greatest>& greatest = scratch_[static_cast<std::size_t>(thread)].greatest;
    LinearCall call = exact_call(frame, thread);
    call.output_stride = kPieceColumns;
    whole_.pieces().for_pieces(thread, [&](const LinearRange& piece, const LinearRange& next) {
        const std::int64_t column = piece.panel_begin * kPanelOutputs;
        const std::int64_t count = std::min(piece.panel_end * kPanelOutputs, weight_->outputs()) - column;
        call.outputs = sums - (piece.row_begin * kPieceColumns + column);
        call.then = call.weight.data + next.panel_begin * call.weight.panel_bytes;
        frame.kernels->linear.linear(call, piece);
        for (std::int64_t r = piece.row_begin; r < piece.row_end; ++r)
            greatest[static_cast<std::size_t>(r)].look(
                frame.kernels->sample, sums + (r - piece.row_begin) * kPieceColumns, count, column);
    });
}

std::vector<std::int32_t> ScreenedLinearInstruction::greatest() const {
    std::vector<std::int32_t> tokens;
    if (scratch_.empty()) return tokens;
    for (std::size_t row = 0; row < scratch_.front().greatest.size(); ++row) {
        Greatest all;
        for (const Scratch& scratch : scratch_) all.join(scratch.greatest[row]);
        tokens.push_back(all.token());
    }
    return tokens;
}

void ScreenedLinearInstruction::run_screened(const Frame& frame, int thread) const {
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    const std::int64_t rows = frame.rows(output_);
    const RowRange panels = share_of(weight_->num_panels(), thread, frame.pool->num_threads());
    for (std::int64_t row = 0; row < rows; ++row) {
        round_row(frame, row, thread);
        scratch.bounds[static_cast<std::size_t>(row)] = bound(frame, row, thread);
    }
    multiply_coarsely(frame, panels, thread);
    for (std::int64_t row = 0; row < rows; ++row) reach(frame, row, panels, thread);
    frame.meet(thread);
    for (std::int64_t row = 0; row < rows; ++row) {
        find_candidates(frame, row, panels, thread);
        for (std::size_t i = 0; i < scratch.panels.size(); ++i) {
            if (i + 1 < scratch.panels.size())
                prefetch_panel(weight_->view(), scratch.panels[i + 1], frame.readings.one.keep);
            multiply(frame, {scratch.panels[i], scratch.panels[i] + 1, row, row + 1}, thread);
            look_at_panel(frame, scratch.panels[i], row, thread);
        }
        scratch.exact += static_cast<std::int64_t>(scratch.panels.size());
    }
}

void ScreenedLinearInstruction::look_at_panel(const Frame& frame, std::int64_t panel, std::int64_t row,
                                              int thread) const {
    const std::int64_t width = weight_->outputs(), column = panel * kPanelOutputs;
    scratch_[static_cast<std::size_t>(thread)].greatest[static_cast<std::size_t>(row)].look(
        frame.kernels->sample, frame.value(output_, thread) + row * width + column,
        std::min<std::int64_t>(kPanelOutputs, width - column), column);
}

// Panels of which some output may be the greatest; the logits of the others become -infinity.
void ScreenedLinearInstruction::find_candidates(const Frame& frame, std::int64_t row, RowRange panels,
                                                int thread) const {
    float reached = -std::numeric_limits<float>::infinity();
    for (const Scratch& other : scratch_)
        reached = std::max(reached, other.reached[static_cast<std::size_t>(row)]);
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    const Bound by = scratch.bounds[static_cast<std::size_t>(row)];
    const std::int64_t width = weight_->outputs();
    float* own = frame.value(output_, thread) + row * width;
    scratch.panels.clear();
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
        const std::int64_t column = panel * kPanelOutputs;
        const std::int64_t count = std::min<std::int64_t>(kPanelOutputs, width - column);
        const float* residuals = screen_->residuals() + column;
        int below = 0;  // a NaN is not below
        for (std::int64_t i = 0; i < count; ++i)
            below += own[column + i] + (residuals[i] * by.coefficient + by.base) < reached;
        if (below < count) {
            scratch.panels.push_back(panel);
        } else {
            std::fill_n(own + column, count, -std::numeric_limits<float>::infinity());
        }
    }
}

}  // namespace pelton
