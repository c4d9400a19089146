#include "core/head_screen.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/errors.h"
#include "core/norms.h"
#include "isa/half.h"

namespace pelton {

namespace {

// The sixteen values of IQ4_NL: denser near zero, where most weights are.
constexpr std::array<int, 16> kTable = {-127, -104, -83, -65, -49, -35, -22, -10,
                                        1,    13,   25,  38,  53,  69,  89,  113};
constexpr int kOffset = 128;
constexpr double kMostExact = 1.0 / 3;  // of panels; more, and the copy saves little or nothing
constexpr std::int64_t kRest = 512;     // passes

WeightLayout copy_layout() {
    WeightLayout layout;
    layout.kind = WeightKind::kBlock;
    layout.bits = 4;
    layout.group = kBlockInputs;
    layout.half_scales = layout.has_table = true;
    layout.offset = kOffset;
    for (std::size_t i = 0; i < kTable.size(); ++i)
        layout.table[i] = static_cast<std::uint8_t>(kTable[i] + kOffset);
    return layout;
}

// The nearest entry of the table to -128 .. 127.
std::array<std::uint8_t, 256> nearest_codes() {
    std::array<std::uint8_t, 256> codes{};
    for (int value = -128; value < 128; ++value) {
        std::size_t best = 0;
        for (std::size_t i = 1; i < kTable.size(); ++i)
            if (std::abs(kTable[i] - value) < std::abs(kTable[best] - value)) best = i;
        codes[static_cast<std::size_t>(value + 128)] = static_cast<std::uint8_t>(best);
    }
    return codes;
}

// Rounds 32 values to codes and a scale; `rest` gets what is lost.
float round_block(const float* values, std::uint8_t* codes, float* rest) {
    static const std::array<std::uint8_t, 256> kNearest = nearest_codes();
    float largest = 0;
    for (int i = 0; i < kBlockInputs; ++i)
        if (std::fabs(values[i]) > std::fabs(largest)) largest = values[i];
    const float scale = widen_f16(narrow_f16(largest / -127.0f));
    const float inverse = scale == 0 || !std::isfinite(scale) ? 0.0f : 1.0f / scale;
    for (int i = 0; i < kBlockInputs; ++i) {
        const float place = values[i] * inverse;
        const int whole =
            std::isnan(place) ? 0 : static_cast<int>(std::clamp(place, -127.0f, 127.0f) + 128.5f);
        codes[i] = kNearest[static_cast<std::size_t>(whole)];
        rest[i] = values[i] - scale * static_cast<float>(kTable[codes[i]]);
    }
    return scale;
}

bool orthonormal(const float* rows, std::int64_t width) {
    for (int a = 0; a < kScreenDirections; ++a)
        for (int b = 0; b <= a; ++b) {
            double sum = 0;
            for (std::int64_t k = 0; k < width; ++k)
                sum += static_cast<double>(rows[a * width + k]) * rows[b * width + k];
            if (!(std::fabs(sum - (a == b ? 1 : 0)) < 1e-5)) return false;
        }
    return true;
}

}  // namespace

struct HeadScreen::Scratch {
    std::vector<float> weights, rest;
    Norms largest;
};

void HeadScreen::Norms::cover(const Norms& other) {
    const auto larger = [](double a, double b) { return a > b || std::isnan(a) ? a : b; };  // a NaN stays
    head = larger(head, other.head);
    copy = larger(copy, other.copy);
    rounding = larger(rounding, other.rounding);
    correction = larger(correction, other.correction);
}

HeadScreen::HeadScreen(std::shared_ptr<const PackedWeight> head) : head_(std::move(head)) {
    require(head_ != nullptr, "a screen has a head");
    require(head_->layout().kind != WeightKind::kPairs, "a screened head is not in pairs");
    require(head_->inputs() % kBlockInputs == 0, "a screened head has a multiple of 32 inputs");
}

void HeadScreen::add_sample(const float* x) {
    if (num_samples_ == kScreenSamples) return;
    samples_.insert(samples_.end(), x, x + head_->inputs());
    ++num_samples_;
}

void HeadScreen::set_directions(const float* directions, ThreadPool& pool) {
    require(!has_directions(), "a screen gets its directions once");
    const std::int64_t inputs = head_->inputs();
    require(orthonormal(directions, inputs), "the directions of a screen are orthonormal");
    WeightLayout floats;
    floats.kind = WeightKind::kF32;
    auto packed = std::make_unique<PackedWeight>(kScreenDirections, inputs, floats);
    packed->pack_floats(0, kScreenDirections, reinterpret_cast<const std::uint8_t*>(directions), pool);
    transposed_.resize(static_cast<std::size_t>(inputs * kScreenDirections));
    for (std::int64_t k = 0; k < inputs; ++k)
        for (std::int64_t d = 0; d < kScreenDirections; ++d)
            transposed_[static_cast<std::size_t>(k * kScreenDirections + d)] = directions[d * inputs + k];
    copy_ = std::make_unique<PackedWeight>(head_->outputs(), inputs + kScreenDirections, copy_layout());
    residuals_.assign(static_cast<std::size_t>(head_->num_panels() * kPanelOutputs), 0.0f);
    directions_ = std::move(packed);
}

HeadScreen::Norms HeadScreen::copy_row(std::int64_t row, Scratch& scratch, std::uint8_t* codes,
                                       float* scales) {
    const std::int64_t inputs = head_->inputs(), blocks = inputs / kBlockInputs;
    float *weights = scratch.weights.data(), *rest = scratch.rest.data();
    head_->unpack_row(row, weights);
    for (std::int64_t b = 0; b < blocks; ++b)
        scales[b] =
            round_block(weights + b * kBlockInputs, codes + b * kBlockInputs, rest + b * kBlockInputs);
    float projected[kScreenDirections] = {}, lost[kScreenDirections];  // here: the sums stay in registers
    for (std::int64_t k = 0; k < inputs; ++k)
        for (int d = 0; d < kScreenDirections; ++d)
            projected[d] += rest[k] * transposed_[static_cast<std::size_t>(k * kScreenDirections + d)];
    scales[blocks] = round_block(projected, codes + inputs, lost);
    const double along = norm(projected, kScreenDirections), all = norm(rest, inputs);
    const double correction = distance(projected, lost, kScreenDirections);
    // The sums above are off by less than a part in 10,000; what is left of `all` by that much of it.
    const double residual = std::sqrt(std::max(all * all - along * along, 0.0) + 1e-4 * all * all);
    residuals_[static_cast<std::size_t>(row)] = static_cast<float>(residual);
    return {norm(weights, inputs), distance(weights, rest, inputs) + correction,
            norm(lost, kScreenDirections) + 1e-4 * along, correction};
}

bool HeadScreen::build(std::int64_t num_rows, ThreadPool& pool) {
    require(has_directions() && num_rows > 0, "a screen is built from directions, some rows at a time");
    const std::int64_t count = std::min(num_rows, head_->outputs() - built_), inputs = copy_->inputs();
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(count * inputs));
    std::vector<float> scales(static_cast<std::size_t>(count * inputs / kBlockInputs));
    std::vector<Scratch> scratches(static_cast<std::size_t>(pool.num_threads()));
    for (Scratch& scratch : scratches) {
        scratch.weights.resize(static_cast<std::size_t>(head_->inputs()));
        scratch.rest.resize(static_cast<std::size_t>(head_->inputs()));
    }
    pool.run([&](int thread) {
        Scratch& scratch = scratches[static_cast<std::size_t>(thread)];
        const std::int64_t end = count * (thread + 1) / pool.num_threads();
        for (std::int64_t i = count * thread / pool.num_threads(); i < end; ++i)
            scratch.largest.cover(copy_row(built_ + i, scratch, codes.data() + i * inputs,
                                           scales.data() + i * (inputs / kBlockInputs)));
    });
    if (count > 0) copy_->pack_codes(built_, count, codes.data(), scales.data(), nullptr, pool);
    for (const Scratch& scratch : scratches) largest_.cover(scratch.largest);
    built_ += count;
    if (built_ < head_->outputs()) return false;
    ready_ = std::isfinite(largest_.head + largest_.copy + largest_.rounding + largest_.correction);
    return true;
}

std::size_t HeadScreen::num_bytes() const noexcept {
    const std::size_t packed = has_directions() ? directions_->num_bytes() + copy_->num_bytes() : 0;
    return packed + (samples_.size() + transposed_.size() + residuals_.size()) * sizeof(float);
}

void HeadScreen::report(std::int64_t panels, std::int64_t of) {
    if (of == 0) {  // a pass that could have used it
        resting_ -= resting_ > 0;
        return;
    }
    share_ += (static_cast<double>(panels) / static_cast<double>(of) - share_) / 16;
    if (share_ <= kMostExact) return;
    resting_ = kRest;
    share_ = 0;
}

}  // namespace pelton
