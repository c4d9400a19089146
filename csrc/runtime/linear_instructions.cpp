#include "runtime/linear_instructions.h"

#include <algorithm>
#include <cstring>

#include "core/partition.h"

namespace pelton {

namespace {

// Rounded rows in the form that the call's weight wants.
void give_rounded(LinearCall& call, const void* rounded) {
    if (call.weight.layout.kind == WeightKind::kPairs)
        call.pairs = static_cast<const ActivationPair*>(rounded);
    else
        call.blocks = static_cast<const ActivationBlock*>(rounded);
}

const float* floats_of(const Frame& frame, int value, int thread) {
    return value < 0 ? nullptr : frame.value(value, thread);
}

// Logits of many rows are more than the caches hold, and rows of a vocabulary's width meet in few of their
// sets. Measured with 49,152 outputs: 16 rows gain 16 %, 48 rows 25 %, 8 rows nothing.
constexpr std::int64_t kVocabularyOutputs = 16384;
bool streams(std::int64_t rows, std::int64_t width, const float* residual) {
    return rows >= 12 && width >= kVocabularyOutputs && residual == nullptr;
}

}  // namespace

void check_input(const ValueCheck& values, const LinearInput& input, const PackedWeight& weight,
                 int row_set) {
    if (weight.layout().kind == WeightKind::kBlock) {
        values.blocks("the rounded input", input.blocks, weight.inputs(), row_set);
    } else if (weight.layout().kind == WeightKind::kPairs) {
        values.pairs("the rounded input", input.blocks, weight.inputs(), row_set);
    } else {
        values.shape("the input", input.x, weight.inputs(), row_set);
    }
}

LinearInstruction::LinearInstruction(LinearInput input, std::vector<LinearPart> parts, int residual)
    : input_(input), parts_(std::move(parts)), residual_(residual) {
    if (input.x >= 0) reads(input.x, false);
    if (input.blocks >= 0) reads(input.blocks, false);
    if (residual >= 0) reads(residual, false);
    for (const LinearPart& part : parts_) {
        writes(part.output, false);
        num_panels_ += part.weight->num_panels();
    }
}

void LinearInstruction::check(const ValueCheck& values) const {
    const int row_set = values.spec("the output", parts_.front().output).row_set;
    for (const LinearPart& part : parts_) {
        check_input(values, input_, *part.weight, row_set);
        values.shape("the output", part.output, part.weight->outputs(), row_set);
        values.that(
            part.bias.empty() || static_cast<std::int64_t>(part.bias.size()) == part.weight->outputs(),
            "a bias is as wide as the output");
    }
    if (residual_ < 0) return;
    values.that(parts_.size() == 1, "a residual is added to one product");
    values.shape("the residual", residual_, parts_.front().weight->outputs(), row_set);
}

void LinearInstruction::start(const Frame& frame) {
    const std::int64_t rows = frame.rows(parts_.front().output);
    // No product reads logits: there is nothing to be won by whose they are, and more by what tiles share.
    const PackedWeight& weight = *parts_.front().weight;
    const bool keeps_rows = weight.outputs() < kVocabularyOutputs;
    pieces_.cut(rows, num_panels_, frame.pool->num_threads(),
                keeps_rows ? least_own_rows(weight, frame.readings.of(rows)) : kNoOwnRows);
}

void LinearInstruction::run(const Frame& frame, int thread) const {
    const std::int64_t rows = frame.rows(parts_.front().output);
    if (rows >= kLeastSharedRows)
        return pieces_.for_pieces(thread, [&](const LinearRange& piece, const LinearRange& next) {
            run_range(frame, piece, next.panel_begin, thread);
        });
    if (rows > 0)
        run_range(frame, linear_share(num_panels_, rows, thread, frame.pool->num_threads()), -1, thread);
}

void LinearInstruction::run_range(const Frame& frame, const LinearRange& range, std::int64_t next_panel,
                                  int thread) const {
    std::int64_t first = 0;  // of the panels of all parts in a row
    for (const LinearPart& part : parts_) {
        const std::int64_t panels = part.weight->num_panels();
        const std::int64_t begin = std::clamp<std::int64_t>(range.panel_begin - first, 0, panels);
        const std::int64_t end = std::clamp<std::int64_t>(range.panel_end - first, 0, panels);
        const bool goes_on = next_panel >= first && next_panel < first + panels;
        const std::uint8_t* then =
            goes_on ? part.weight->view().data + (next_panel - first) * part.weight->view().panel_bytes
                    : nullptr;
        if (begin < end) run_part(frame, part, {begin, end, range.row_begin, range.row_end}, then, thread);
        first += panels;
    }
}

void LinearInstruction::run_part(const Frame& frame, const LinearPart& part, const LinearRange& range,
                                 const std::uint8_t* then, int thread) const {
    const std::int64_t width = part.weight->outputs();
    float* outputs = frame.value(part.output, thread);
    const float* residual = floats_of(frame, residual_, thread);
    if (residual != nullptr && residual != outputs) {
        const std::int64_t column = range.panel_begin * kPanelOutputs;
        const std::int64_t count = std::min(width, range.panel_end * kPanelOutputs) - column;
        for (std::int64_t row = range.row_begin; row < range.row_end; ++row)
            std::memcpy(outputs + row * width + column, residual + row * width + column,
                        static_cast<std::size_t>(count) * sizeof(float));
    }
    LinearCall call{part.weight->view(),
                    nullptr,
                    floats_of(frame, input_.x, thread),
                    part.weight->inputs(),
                    outputs,
                    width,
                    part.bias.empty() ? nullptr : part.bias.data(),
                    residual != nullptr,
                    input_.fine,
                    frame.readings.of(frame.rows(part.output)),
                    streams(frame.rows(part.output), width, residual),
                    then,
                    frame.ahead + thread};
    give_rounded(call, floats_of(frame, input_.blocks, thread));
    frame.kernels->linear.linear(call, range);
}

LinearRange gated_share(const PackedWeight& gate, std::int64_t whole, std::int64_t rows, int thread,
                        int num_threads) {
    const std::int64_t panels = gate.num_panels();
    const LinearRange parts = linear_share((panels + whole - 1) / whole, rows, thread, num_threads);
    return {parts.panel_begin * whole, std::min(parts.panel_end * whole, panels), parts.row_begin,
            parts.row_end};
}

namespace {

// Rows of a tile, of which `from` has `count` columns from `column` on.
void round_gated(const GatedCall& call, const float* from, RowRange rows, std::int64_t column,
                 std::int64_t count) {
    const std::int64_t width = call.gate->outputs();
    const LinearKernels& kernels = call.kernels->linear;
    if (call.segment > 0) {
        auto* pairs = static_cast<ActivationPair*>(call.quantized);
        const std::int64_t row_pairs = pairs_of(width);
        return kernels.quantize_pairs({from, kPieceColumns, count, rows.size(),
                                       pairs + rows.begin * row_pairs + column / kPairInputs, row_pairs,
                                       call.segment, false});
    }
    auto* blocks = static_cast<ActivationBlock*>(call.quantized) + column / kBlockInputs;
    for (std::int64_t row = rows.begin; row < rows.end; ++row, from += kPieceColumns)
        kernels.quantize(from, count, count, false, blocks + row * width / kBlockInputs, 0,
                         count / kBlockInputs);
}

// What a tile [kPieceRows, kPieceColumns] of `gate` holds becomes the outputs of its rows, some rows at a
// time, which are rounded before they leave the first-level cache.
void finish_gated(const GatedCall& call, const float* up, float* gate, const LinearRange& part) {
    const std::int64_t width = call.gate->outputs(), column = part.panel_begin * kPanelOutputs;
    const std::int64_t count = std::min(part.panel_end * kPanelOutputs, width) - column;
    constexpr std::int64_t kTogether = 8;
    for (std::int64_t first = part.row_begin; first < part.row_end; first += kTogether) {
        const RowRange rows{first, std::min(first + kTogether, part.row_end)};
        const float* const from = gate;
        for (std::int64_t r = rows.begin; r < rows.end; ++r, gate += kPieceColumns, up += kPieceColumns) {
            call.kernels->elementwise.gate(call.activation, gate, up, gate, count);
            if (call.outputs != nullptr)
                std::memcpy(call.outputs + r * width + column, gate, static_cast<std::size_t>(count) * 4);
        }
        if (call.quantized != nullptr) round_gated(call, from, rows, column, count);
    }
}

// At most kPieceRows by kPiecePanels, in tiles that stay in the cache; panel `next` is read afterwards.
void run_gated_piece(const GatedCall& call, const LinearRange& piece, std::int64_t next) {
    alignas(64) float tiles[2][kPieceRows * kPieceColumns];  // 48 KB each
    LinearCall gate{call.gate->view(), nullptr, call.inputs, call.gate->inputs(), nullptr, kPieceColumns,
                    nullptr,           false,   false,       call.reading};
    gate.ahead = call.ahead;
    LinearCall up = gate;
    up.weight = call.up->view();
    give_rounded(gate, call.blocks);
    give_rounded(up, call.blocks);
    if (gate.weight.panel_bytes == up.weight.panel_bytes) {
        gate.then = up.weight.data + piece.panel_begin * up.weight.panel_bytes;
        up.then = gate.weight.data + next * gate.weight.panel_bytes;
    }
    const std::int64_t before = piece.row_begin * kPieceColumns + piece.panel_begin * kPanelOutputs;
    gate.outputs = tiles[0] - before;  // of the tile's first
    up.outputs = tiles[1] - before;
    call.kernels->linear.linear(gate, piece);
    call.kernels->linear.linear(up, piece);
    finish_gated(call, tiles[1], tiles[0], piece);
}

}  // namespace

void run_gated(const GatedCall& call, const LinearRange& range) {
    for (std::int64_t row = range.row_begin; row < range.row_end; row += kPieceRows) {
        const std::int64_t row_end = std::min(row + kPieceRows, range.row_end);
        for (std::int64_t panel = range.panel_begin; panel < range.panel_end; panel += kPiecePanels) {
            const std::int64_t end = std::min(panel + kPiecePanels, range.panel_end);
            run_gated_piece(call, {panel, end, row, row_end},
                            end < range.panel_end ? end : range.panel_begin);
        }
    }
}

GatedLinearInstruction::GatedLinearInstruction(LinearInput input, Weight gate, Weight up,
                                               Activation activation, int output, int quantized, int segment)
    : input_(input),
      gate_(std::move(gate)),
      up_(std::move(up)),
      activation_(activation),
      output_(output),
      quantized_(quantized),
      segment_(segment) {
    if (input.x >= 0) reads(input.x, false);
    if (input.blocks >= 0) reads(input.blocks, false);
    if (output >= 0) writes(output, false);
    if (quantized >= 0) writes(quantized, false);
}

void GatedLinearInstruction::check(const ValueCheck& values) const {
    values.that(output_ >= 0 || quantized_ >= 0, "the output is missing");
    const int row_set = values.spec("the output", output_ >= 0 ? output_ : quantized_).row_set;
    for (const Weight& weight : {gate_, up_}) {
        check_input(values, input_, *weight, row_set);
        values.that(weight->outputs() == gate_->outputs(), "gate and up differ in outputs");
    }
    if (output_ >= 0) values.shape("the output", output_, gate_->outputs(), row_set);
    // Also where nothing is rounded: it says in what panels pieces are cut.
    values.that(segment_ >= 0 && segment_ <= kPiecePanels * kPanelOutputs / kPairInputs,
                "a segment is at most as wide as a piece");
    if (quantized_ < 0) return;
    segment_ > 0 ? values.pairs("the rounded output", quantized_, gate_->outputs(), row_set)
                 : values.blocks("the rounded output", quantized_, gate_->outputs(), row_set);
}

void GatedLinearInstruction::start(const Frame& frame) {
    const std::int64_t rows = frame.rows(output_ >= 0 ? output_ : quantized_);
    pieces_.cut(rows, gate_->num_panels(), frame.pool->num_threads(),
                least_own_rows(*gate_, frame.readings.of(rows)), whole_panels(segment_));
}

void GatedLinearInstruction::run(const Frame& frame, int thread) const {
    const std::int64_t rows = frame.rows(output_ >= 0 ? output_ : quantized_);
    if (rows == 0) return;
    const GatedCall call{frame.kernels,
                         gate_.get(),
                         up_.get(),
                         floats_of(frame, input_.blocks, thread),
                         floats_of(frame, input_.x, thread),
                         output_ < 0 ? nullptr : frame.value(output_, thread),
                         quantized_ < 0 ? nullptr : frame.value(quantized_, thread),
                         segment_,
                         activation_,
                         frame.readings.of(rows),
                         frame.ahead + thread};
    if (rows < kLeastSharedRows)
        return run_gated(
            call, gated_share(*gate_, whole_panels(segment_), rows, thread, frame.pool->num_threads()));
    pieces_.for_pieces(thread, [&](const LinearRange& piece, const LinearRange& next) {
        run_gated_piece(call, piece, next.panel_begin);
    });
}

}  // namespace pelton
