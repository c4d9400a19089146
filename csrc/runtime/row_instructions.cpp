#include "runtime/row_instructions.h"

#include <algorithm>
#include <cstring>

#include "core/errors.h"

namespace pelton {

namespace {

std::size_t row_bytes(const Frame& frame, int value) {
    return static_cast<std::size_t>(frame.width(value)) * sizeof(float);
}

}  // namespace

EmbedInstruction::EmbedInstruction(int y, std::shared_ptr<const PackedWeight> table, float scale,
                                   bool by_position)
    : y_(y), table_(std::move(table)), scale_(scale), by_position_(by_position) {
    writes(y);
}

void EmbedInstruction::check(const ValueCheck& values) const {
    values.shape("the output", y_, table_->inputs(), kAllRows);
}

void EmbedInstruction::run(const Frame& frame, int thread) const {
    const std::int32_t* ids = by_position_ ? frame.batch.positions() : frame.batch.tokens();
    const std::int64_t width = frame.width(y_);
    const RowRange own = frame.own_rows(y_, thread);
    for (std::int64_t row = own.begin; row < own.end; ++row) {
        require(ids[row] >= 0 && ids[row] < table_->outputs(),
                "a token id or position lies outside its table");
        float* y = frame.value(y_, thread) + row * width;
        table_->unpack_row(ids[row], y);
        if (scale_ != 1.0f) frame.kernels->elementwise.scale(y, scale_, y, width);
    }
}

NormInstruction::NormInstruction(int x, int y, NormSpec spec) : x_(x), y_(y), spec_(std::move(spec)) {
    reads(x);
    writes(y);
}

void NormInstruction::check(const ValueCheck& values) const {
    const ValueSpec& x = values.spec("x", x_);
    values.that(spec_.group > 0 && x.width % spec_.group == 0, "a row does not split into groups");
    for (const Vector* vector : {&spec_.weight, &spec_.bias}) {
        const std::int64_t size = static_cast<std::int64_t>(vector->size());
        values.that(size == 0 || size == spec_.group || size == x.width,
                    "a weight or bias has the width of a group or of a row");
    }
    values.shape("the output", y_, x.width, x.row_set);
}

// The kernel wants both vectors with the same number of groups.
const float* NormInstruction::as_rows(const Vector& given, std::int64_t width, Vector& repeated) const {
    if (given.empty() || static_cast<std::int64_t>(given.size()) == width)
        return given.empty() ? nullptr : given.data();
    while (static_cast<std::int64_t>(repeated.size()) < width)
        repeated.insert(repeated.end(), given.begin(), given.end());
    return repeated.data();
}

void NormInstruction::run(const Frame& frame, int thread) const {
    const RowRange own = frame.own_rows(y_, thread);
    if (own.size() == 0) return;
    const std::int64_t width = frame.width(x_), groups = width / spec_.group;
    const std::size_t longest = std::max(spec_.weight.size(), spec_.bias.size());
    const std::int64_t period = static_cast<std::int64_t>(longest) > spec_.group ? groups : 1;
    Vector repeated_weight, repeated_bias;
    const float* weight = as_rows(spec_.weight, period * spec_.group, repeated_weight);
    const float* bias = as_rows(spec_.bias, period * spec_.group, repeated_bias);
    const NormCall call{frame.value(x_, thread) + own.begin * width,
                        frame.value(y_, thread) + own.begin * width,
                        weight,
                        bias,
                        own.size() * groups,
                        spec_.group,
                        period,
                        spec_.eps};
    spec_.centred ? frame.kernels->norm.layer(call) : frame.kernels->norm.rms(call);
}

ElementwiseInstruction::ElementwiseInstruction(Elementwise kind, int a, int b, int y, float number,
                                               Activation activation)
    : kind_(kind), a_(a), b_(b), y_(y), number_(number), activation_(activation) {
    reads(a);
    if (b >= 0) reads(b);
    writes(y);
}

void ElementwiseInstruction::check(const ValueCheck& values) const {
    const ValueSpec& a = values.spec("the first input", a_);
    const bool takes_two = kind_ == Elementwise::kAdd || kind_ == Elementwise::kMul;
    values.that(takes_two || b_ < 0, "there is one input too many");
    if (takes_two) values.shape("the second input", b_, a.width, a.row_set);
    values.shape("the output", y_, a.width, a.row_set);
}

void ElementwiseInstruction::run(const Frame& frame, int thread) const {
    const RowRange own = frame.own_rows(y_, thread);
    const std::int64_t width = frame.width(y_), start = own.begin * width, count = own.size() * width;
    const ElementwiseKernels& kernels = frame.kernels->elementwise;
    const float* a = frame.value(a_, thread) + start;
    const float* b = b_ < 0 ? nullptr : frame.value(b_, thread) + start;
    float* y = frame.value(y_, thread) + start;
    switch (kind_) {
        case Elementwise::kAdd:
            return kernels.add(a, b, y, count);
        case Elementwise::kMul:
            return kernels.mul(a, b, y, count);
        case Elementwise::kScale:
            return kernels.scale(a, number_, y, count);
        case Elementwise::kSoftCap:
            return kernels.soft_cap(a, number_, y, count);
        case Elementwise::kActivate:
            return kernels.activate(activation_, a, y, count);
    }
}

const char* ElementwiseInstruction::name() const noexcept {
    constexpr const char* kNames[] = {"add", "mul", "scale", "soft_cap", "activate"};
    return kNames[static_cast<int>(kind_)];
}

RopeInstruction::RopeInstruction(int x, int y, std::shared_ptr<RopeTable> table)
    : x_(x), y_(y), table_(std::move(table)) {
    reads(x);
    writes(y);
}

void RopeInstruction::check(const ValueCheck& values) const {
    const ValueSpec& x = values.spec("x", x_);
    values.that(x.width % table_->spec().head_dim == 0, "a row does not split into heads");
    values.shape("the output", y_, x.width, x.row_set);
}

void RopeInstruction::run(const Frame& frame, int thread) const {
    const RopeSpec& spec = table_->spec();
    const std::int64_t width = frame.width(x_), half = static_cast<std::int64_t>(spec.frequencies.size());
    const std::int32_t* rows = frame.batch.rows((*frame.specs)[x_].row_set);
    const RowRange own = frame.own_rows(y_, thread);
    for (std::int64_t row = own.begin; row < own.end; ++row)
        frame.kernels->rope.rotate({frame.value(x_, thread) + row * width,
                                    frame.value(y_, thread) + row * width,
                                    table_->at(frame.batch.position(rows[row])), width / spec.head_dim,
                                    spec.head_dim, half, spec.interleaved});
}

QuantizeInstruction::QuantizeInstruction(int x, int y, bool fine, int segment)
    : x_(x), y_(y), fine_(fine), segment_(segment) {
    reads(x);
    writes(y);
}

void QuantizeInstruction::check(const ValueCheck& values) const {
    const ValueSpec& x = values.spec("x", x_);
    values.that(segment_ >= 0 && segment_ <= kMostSegmentPairs, "a segment has at most 9 pairs");
    segment_ > 0 ? values.pairs("the output", y_, x.width, x.row_set)
                 : values.blocks("the output", y_, x.width, x.row_set);
}

void QuantizeInstruction::run(const Frame& frame, int thread) const {
    const std::int64_t width = frame.width(x_), per_row = width / kBlockInputs;
    const RowRange own = frame.own_rows(y_, thread);
    const float* from = frame.value(x_, thread);
    if (segment_ > 0) {
        auto* pairs = reinterpret_cast<ActivationPair*>(frame.value(y_, thread));
        const std::int64_t row_pairs = pairs_of(width);
        return frame.kernels->linear.quantize_pairs({from + own.begin * width, width, width, own.size(),
                                                     pairs + own.begin * row_pairs, row_pairs, segment_,
                                                     fine_});
    }
    auto* blocks = reinterpret_cast<ActivationBlock*>(frame.value(y_, thread));
    frame.kernels->linear.quantize(from, width, width, fine_, blocks, own.begin * per_row, own.end * per_row);
}

SelectInstruction::SelectInstruction(int x, int y) : x_(x), y_(y) {
    reads(x, false);
    writes(y);
}

void SelectInstruction::check(const ValueCheck& values) const {
    values.shape("x", x_, values.spec("the output", y_).width, kAllRows);
}

void SelectInstruction::run(const Frame& frame, int thread) const {
    const std::int32_t* rows = frame.batch.rows((*frame.specs)[y_].row_set);
    const std::int64_t width = frame.width(y_);
    const RowRange own = frame.own_rows(y_, thread);
    for (std::int64_t row = own.begin; row < own.end; ++row)
        std::memcpy(frame.value(y_, thread) + row * width, frame.value(x_, thread) + rows[row] * width,
                    row_bytes(frame, y_));
}

ScatterInstruction::ScatterInstruction(int whole, int part, int y) : whole_(whole), part_(part), y_(y) {
    reads(whole);
    reads(part, false);
    writes(y);
}

void ScatterInstruction::check(const ValueCheck& values) const {
    const ValueSpec& part = values.spec("the part", part_);
    values.shape("the whole", whole_, part.width, kAllRows);
    values.shape("the output", y_, part.width, kAllRows);
}

void ScatterInstruction::run(const Frame& frame, int thread) const {
    const int row_set = (*frame.specs)[part_].row_set;
    const std::int32_t* rows = frame.batch.rows(row_set);
    const std::int64_t width = frame.width(y_), count = frame.batch.rows_of(row_set);
    const RowRange own = frame.own_rows(y_, thread);
    float* y = frame.value(y_, thread);
    std::memcpy(y + own.begin * width, frame.value(whole_, thread) + own.begin * width,
                row_bytes(frame, y_) * static_cast<std::size_t>(own.size()));
    for (std::int64_t i = std::lower_bound(rows, rows + count, own.begin) - rows;
         i < count && rows[i] < own.end; ++i)
        std::memcpy(y + rows[i] * width, frame.value(part_, thread) + i * width, row_bytes(frame, y_));
}

RouteInstruction::RouteInstruction(int x, int y, std::int64_t top_k, bool normalize)
    : x_(x), y_(y), top_k_(top_k), normalize_(normalize) {
    reads(x);
    writes(y);
}

void RouteInstruction::check(const ValueCheck& values) const {
    const ValueSpec& x = values.spec("x", x_);
    values.that(top_k_ > 0 && top_k_ <= x.width, "a row has 1 to all experts");
    values.shape("the output", y_, x.width, x.row_set);
}

void RouteInstruction::run(const Frame& frame, int thread) const {
    const std::int64_t width = frame.width(y_);
    const RowRange own = frame.own_rows(y_, thread);
    for (std::int64_t row = own.begin; row < own.end; ++row)
        frame.kernels->experts.route(frame.value(x_, thread) + row * width,
                                     frame.value(y_, thread) + row * width, width, top_k_, normalize_);
}

}  // namespace pelton
