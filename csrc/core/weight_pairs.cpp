#include "core/weight_pairs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/panel_block.h"

namespace pelton {

namespace {

constexpr double kMostInt16 = 32767.0;
// The most that (code - 8) * q adds up to in a block, and a sum of codes once it is cut; with what rounding
// adds.
constexpr double kMostPart = 8 * 127 * kBlockInputs + 1;
constexpr double kMostSum = (127 * kBlockInputs << kPairScaleBits >> kPairSumBits) + 1;

// Of an output's blocks, scales and the minimums of code - 8.
struct Lanes {
    double scales[kPanelOutputs], minimums[kPanelOutputs];
};

Lanes read_lanes(const std::uint8_t* sets, const WeightLayout& plain) {
    Lanes lanes;
    for (int lane = 0; lane < kPanelOutputs; ++lane) {
        const std::uint8_t* own = sets + lane * scale_bytes(plain);
        lanes.scales[lane] = get_scale(own, plain, nullptr);
        lanes.minimums[lane] = 0.0;
        if (plain.has_minimum)
            lanes.minimums[lane] =
                get_scale(own + set_bytes(plain), plain, nullptr) + kCodeOffset * lanes.scales[lane];
    }
    return lanes;
}

// What an output's unit has to hold: the largest numbers, and the most that a segment's total can be with a
// unit of 1, but for what rounding adds.
struct Extent {
    double scale = 0.0, minimum = 0.0, total = 0.0, segment = 0.0;
    bool finite = true;

    void add(double block_scale, double block_minimum) {
        finite = finite && std::isfinite(block_scale) && std::isfinite(block_minimum);
        scale = std::max(scale, std::abs(block_scale));
        minimum = std::max(minimum, std::abs(block_minimum));
        segment += std::abs(block_scale) * ((1 << kPairScaleBits) * kMostPart);
        segment += std::abs(block_minimum) * ((1 << kPairSumBits) * kMostSum);
    }
    void end_segment() {
        total = std::max(total, segment);
        segment = 0.0;
    }
    // Whether no total can leave 32 bits, nor a number its 16.
    bool fits(double unit, int segment_pairs) const {
        const double rounding = 2 * segment_pairs * (2 * kMostPart + kMostSum);
        return scale * (1 << kScaleProductBits) <= kMostInt16 * unit &&
               minimum * (1 << kPairSumBits) <= kMostInt16 * unit &&
               total + rounding * unit <= std::numeric_limits<std::int32_t>::max() * unit;
    }
    // The least power of two that fits; NaN where none does.
    double unit(int segment_pairs) const {
        if (!finite) return std::numeric_limits<double>::quiet_NaN();
        // Of minimums alone that of float16's least scale.
        double found = std::ldexp(1.0, scale == 0.0 ? -24 : std::ilogb(scale));
        while (!fits(found, segment_pairs)) found *= 2.0;
        return found;
    }
};

void write_number(double value, std::uint8_t* to) {
    const auto number = static_cast<std::int16_t>(std::lrint(value));
    std::memcpy(to, &number, 2);
}

// A block's codes of 16 outputs, its halves' in low and high nibbles, to all low or all high ones.
void add_codes(const std::uint8_t* from, int shift, std::uint8_t* to) {
    for (int i = 0; i < kPairCodeBytes / 2; ++i) {
        to[i] = static_cast<std::uint8_t>(to[i] | (from[i] & 15) << shift);
        to[i + kPairCodeBytes / 2] =
            static_cast<std::uint8_t>(to[i + kPairCodeBytes / 2] | from[i] >> 4 << shift);
    }
}

}  // namespace

bool has_pairs(const WeightLayout& layout) noexcept {
    return layout.kind == WeightKind::kBlock && layout.bits == 4 && layout.group == kBlockInputs &&
           layout.half_scales && !layout.has_table && (layout.has_minimum || layout.offset == kCodeOffset);
}

WeightLayout pairs_layout(int segment, bool has_minimum) noexcept {
    WeightLayout layout;
    layout.kind = WeightKind::kPairs;
    layout.segment = static_cast<std::uint8_t>(segment);
    layout.has_minimum = has_minimum;
    return layout;
}

std::int64_t pairs_panel_bytes(std::int64_t inputs, bool has_minimum) noexcept {
    return pairs_of(inputs) * pair_bytes(has_minimum) + kPanelOutputs * 4;
}

void pack_pairs(const WeightView& plain, std::int64_t panel, int segment, std::uint8_t* to) {
    const std::uint8_t* from = plain.data + panel * plain.panel_bytes;
    const std::int64_t blocks = plain.inputs / kBlockInputs, bytes = pair_bytes(plain.layout.has_minimum);
    for (std::int64_t i = 0; i < blocks; ++i)
        add_codes(block_place(from, i, plain.layout).codes, i % 2 == 0 ? 4 : 0, to + i / 2 * bytes);
    std::vector<Lanes> read(static_cast<std::size_t>(blocks));
    Extent extents[kPanelOutputs];
    for (std::int64_t i = 0; i < blocks; ++i) {
        const Lanes& lanes = read[static_cast<std::size_t>(i)] =
            read_lanes(block_place(from, i, plain.layout).sets, plain.layout);
        const bool ends = (i + 1) % (2 * segment) == 0 || i + 1 == blocks;
        for (int lane = 0; lane < kPanelOutputs; ++lane) {
            extents[lane].add(lanes.scales[lane], lanes.minimums[lane]);
            if (ends) extents[lane].end_segment();
        }
    }
    for (int lane = 0; lane < kPanelOutputs; ++lane) {
        const double unit = extents[lane].unit(segment), inverse = 1.0 / unit;
        const auto kept = static_cast<float>(unit);
        std::memcpy(to + pairs_of(plain.inputs) * bytes + lane * 4, &kept, 4);
        if (std::isnan(unit)) continue;
        for (std::int64_t i = 0; i < blocks; ++i) {
            const Lanes& lanes = read[static_cast<std::size_t>(i)];
            std::uint8_t* own = to + i / 2 * bytes + kPairCodeBytes + 4 * lane + (1 - i % 2) * 2;
            write_number(lanes.scales[lane] * inverse * (1 << kScaleProductBits), own);
            if (plain.layout.has_minimum)
                write_number(lanes.minimums[lane] * inverse * (1 << kPairSumBits), own + kPairSetBytes);
        }
    }
}

void unpack_pairs(const WeightView& weight, std::int64_t panel, int lane, float* values) {
    const std::uint8_t* from = weight.data + panel * weight.panel_bytes;
    const std::int64_t bytes = pair_bytes(weight.layout.has_minimum);
    float unit;
    std::memcpy(&unit, from + pairs_of(weight.inputs) * bytes + lane * 4, 4);
    for (std::int64_t i = 0; i < weight.inputs; ++i) {
        const std::int64_t block = i / kBlockInputs, k = i % kBlockInputs;
        const std::uint8_t* pair = from + block / 2 * bytes;
        const std::uint8_t byte = pair[k / 4 * 64 + 4 * lane + k % 4];
        const int code = block % 2 == 0 ? byte >> 4 : byte & 15;
        std::int16_t scale, minimum = 0;
        const std::uint8_t* sets = pair + kPairCodeBytes + 4 * lane + (1 - block % 2) * 2;
        std::memcpy(&scale, sets, 2);
        if (weight.layout.has_minimum) std::memcpy(&minimum, sets + kPairSetBytes, 2);
        values[i] = static_cast<float>(std::ldexp(unit, -kScaleProductBits) * scale * (code - kCodeOffset) +
                                       std::ldexp(unit, -kPairSumBits) * minimum);
    }
}

}  // namespace pelton
