#include "core/weight_pairs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/panel_block.h"

namespace pelton {

namespace {

constexpr std::int64_t kCodeBytes = 512, kSetBytes = 64, kPairBytes = kCodeBytes + 2 * kSetBytes;
constexpr double kMostInt16 = 32767.0;
// The most that (code - 8) * q adds up to in a block, and a sum of codes once it is cut; with what rounding
// adds.
constexpr double kMostPart = 8 * 127 * kBlockInputs + 1;
constexpr double kMostSum = (127 * kBlockInputs << kPairScaleBits >> kPairSumBits) + 1;

struct ScaleAndMinimum {
    double scale, minimum;  // of code - 8
};

using Row = std::vector<ScaleAndMinimum>;  // one output's blocks

// Of an output of a panel.
void read_row(const WeightView& plain, const std::uint8_t* panel, int lane, Row& row) {
    for (std::size_t i = 0; i < row.size(); ++i) {
        const auto place = block_place(panel, static_cast<std::int64_t>(i), plain.layout);
        const std::uint8_t* own = place.sets + lane * scale_bytes(plain.layout);
        const double scale = get_scale(own, plain.layout, nullptr);
        row[i] = {scale,
                  get_scale(own + set_bytes(plain.layout), plain.layout, nullptr) + kCodeOffset * scale};
    }
}

// Whether no total of a segment can leave 32 bits, nor a number its 16.
bool fits(const Row& row, int segment, double unit) {
    const double scale_unit = std::ldexp(unit, -kScaleProductBits);
    const double minimum_unit = std::ldexp(unit, -kPairSumBits);
    double total = 0.0;
    for (std::size_t i = 0; i < row.size(); ++i) {
        if (i % static_cast<std::size_t>(2 * segment) == 0) total = 0.0;
        const double scale = std::abs(row[i].scale) / scale_unit,
                     minimum = std::abs(row[i].minimum) / minimum_unit;
        if (!(scale <= kMostInt16 && minimum <= kMostInt16)) return false;
        total += (std::ldexp(scale, kPairScaleBits - kScaleProductBits) + 2) * kMostPart +
                 (minimum + 1) * kMostSum;
        if (total > std::numeric_limits<std::int32_t>::max()) return false;
    }
    return true;
}

// The least power of two with which a row fits; NaN where none does.
float unit_of(const Row& row, int segment) {
    double largest = 0.0;
    for (const ScaleAndMinimum& block : row) {
        if (!std::isfinite(block.scale) || !std::isfinite(block.minimum))
            return std::numeric_limits<float>::quiet_NaN();
        largest = std::max(largest, std::abs(block.scale));
    }
    if (largest == 0.0) largest = std::ldexp(1.0, -24);  // of minimums alone; of float16 the least
    double unit = std::ldexp(1.0, std::ilogb(largest));
    while (!fits(row, segment, unit)) unit *= 2.0;
    return static_cast<float>(unit);
}

std::int16_t rounded(double value) { return static_cast<std::int16_t>(std::lrint(value)); }

void write_row(const Row& row, int segment, int lane, std::uint8_t* to) {
    const float unit = unit_of(row, segment);
    const std::int64_t blocks = static_cast<std::int64_t>(row.size()), pairs = (blocks + 1) / 2;
    std::memcpy(to + pairs * kPairBytes + lane * 4, &unit, 4);
    if (std::isnan(unit)) return;
    for (std::int64_t i = 0; i < blocks; ++i) {
        const ScaleAndMinimum& block = row[static_cast<std::size_t>(i)];
        const std::int16_t scale = rounded(std::ldexp(block.scale / unit, kScaleProductBits));
        const std::int16_t minimum = rounded(std::ldexp(block.minimum / unit, kPairSumBits));
        std::uint8_t* sets = to + i / 2 * kPairBytes + kCodeBytes + 4 * lane + (1 - i % 2) * 2;
        std::memcpy(sets, &scale, 2);
        std::memcpy(sets + kSetBytes, &minimum, 2);
    }
}

// A block's codes of 16 outputs, its halves' in low and high nibbles, to all low or all high ones.
void add_codes(const std::uint8_t* from, int shift, std::uint8_t* to) {
    for (int i = 0; i < kCodeBytes / 2; ++i) {
        to[i] = static_cast<std::uint8_t>(to[i] | (from[i] & 15) << shift);
        to[i + kCodeBytes / 2] = static_cast<std::uint8_t>(to[i + kCodeBytes / 2] | from[i] >> 4 << shift);
    }
}

}  // namespace

bool has_pairs(const WeightLayout& layout) noexcept {
    return layout.kind == WeightKind::kBlock && layout.bits == 4 && layout.group == kBlockInputs &&
           layout.half_scales && layout.has_minimum && !layout.has_table;
}

WeightLayout pairs_layout(int segment) noexcept {
    WeightLayout layout;
    layout.kind = WeightKind::kPairs;
    layout.segment = static_cast<std::uint8_t>(segment);
    return layout;
}

std::int64_t pairs_panel_bytes(std::int64_t inputs) noexcept {
    return pairs_of(inputs) * kPairBytes + kPanelOutputs * 4;
}

void pack_pairs(const WeightView& plain, std::int64_t panel, int segment, std::uint8_t* to) {
    const std::uint8_t* from = plain.data + panel * plain.panel_bytes;
    const std::int64_t blocks = plain.inputs / kBlockInputs;
    for (std::int64_t i = 0; i < blocks; ++i)
        add_codes(block_place(from, i, plain.layout).codes, i % 2 == 0 ? 4 : 0, to + i / 2 * kPairBytes);
    Row row(static_cast<std::size_t>(blocks));
    for (int lane = 0; lane < kPanelOutputs; ++lane) {
        read_row(plain, from, lane, row);
        write_row(row, segment, lane, to);
    }
}

void unpack_pairs(const std::uint8_t* panel, int lane, std::int64_t inputs, float* values) {
    float unit;
    std::memcpy(&unit, panel + pairs_of(inputs) * kPairBytes + lane * 4, 4);
    for (std::int64_t i = 0; i < inputs; ++i) {
        const std::int64_t block = i / kBlockInputs, k = i % kBlockInputs;
        const std::uint8_t* pair = panel + block / 2 * kPairBytes;
        const std::uint8_t byte = pair[k / 4 * 64 + 4 * lane + k % 4];
        const int code = block % 2 == 0 ? byte >> 4 : byte & 15;
        std::int16_t scale, minimum;
        const std::uint8_t* sets = pair + kCodeBytes + 4 * lane + (1 - block % 2) * 2;
        std::memcpy(&scale, sets, 2);
        std::memcpy(&minimum, sets + kSetBytes, 2);
        values[i] = static_cast<float>(std::ldexp(unit, -kScaleProductBits) * scale * (code - kCodeOffset) +
                                       std::ldexp(unit, -kPairSumBits) * minimum);
    }
}

}  // namespace pelton
