#include "core/packed_weight.h"

#include <algorithm>
#include <limits>

#include "core/errors.h"
#include "core/gguf_blocks.h"
#include "core/panel_block.h"
#include "core/weight_pairs.h"

namespace pelton {

namespace {

// Bytes of one panel, before rounding.
std::int64_t raw_panel_bytes(const WeightLayout& layout, std::int64_t inputs) {
    switch (layout.kind) {
        case WeightKind::kBlock:
            return inputs / block_inputs(layout) * panel_block_bytes(layout);
        case WeightKind::kF32:
            return inputs * kPanelOutputs * 4;
        case WeightKind::kF16:
            return inputs * kPanelOutputs * 2;
        case WeightKind::kBF16:
            return (inputs + 1) / 2 * kPanelOutputs * 4;
        case WeightKind::kPairs:
            return pairs_panel_bytes(inputs, layout.has_minimum);
    }
    return 0;
}

constexpr std::int64_t value_bytes(WeightKind kind) { return kind == WeightKind::kF32 ? 4 : 2; }

// Byte of input k, output lane within a float panel.
constexpr std::int64_t float_place(WeightKind kind, std::int64_t k, std::int64_t lane) {
    if (kind == WeightKind::kBF16) return (k / 2 * kPanelOutputs + lane) * 4 + k % 2 * 2;
    return (k * kPanelOutputs + lane) * value_bytes(kind);
}

// Inputs that all rows of a panel fill before its next ones: what they share stays in the first-level cache.
constexpr std::int64_t kRunInputs = 1024;

// Inputs first..end of one output, whose row begins at `row`; `first` is even.
template <WeightKind kKind>
void pack_float_run(const std::uint8_t* row, std::int64_t first, std::int64_t end, std::uint8_t* panel,
                    int lane) {
    constexpr std::int64_t kBytes = value_bytes(kKind), kTogether = kKind == WeightKind::kBF16 ? 2 : 1;
    std::int64_t k = first;
    for (; k + kTogether <= end; k += kTogether)
        std::memcpy(panel + float_place(kKind, k, lane), row + k * kBytes, kTogether * kBytes);
    if (k < end) std::memcpy(panel + float_place(kKind, k, lane), row + k * kBytes, kBytes);
}

void store_codes(const WeightLayout& layout, const std::uint8_t* codes, StoredBlock& block) {
    if (layout.bits == 8) {
        std::memcpy(block.codes, codes, kBlockInputs);
        return;
    }
    for (int i = 0; i < 16; ++i)
        block.codes[i] = static_cast<std::uint8_t>((codes[i] & 15) | codes[i + 16] << 4);
}

}  // namespace

void check_layout(const WeightLayout& layout) {
    if (layout.kind != WeightKind::kBlock) return;
    require(layout.bits == 4 || layout.bits == 8, "block weights have 4 or 8 bits");
    require(layout.group == 16 || layout.group == 32, "block weights have groups of 16 or 32 inputs");
    require(!layout.has_table || layout.bits == 4, "only 4-bit codes index a table");
    require(!layout.has_table || !layout.has_minimum, "block weights with a table have no minimums");
    require(!layout.half_scales || layout.group == 32, "float16 scales are of groups of 32");
    require(!layout.has_minimum || layout.offset == 0, "a block weight has an offset or minimums, not both");
    require(layout.offset >= 0 && layout.offset <= 255, "the offset of a block weight lies in 0..255");
}

PackedWeight::PackedWeight(std::int64_t outputs, std::int64_t inputs, const WeightLayout& layout,
                           WeightMemory* memory) {
    check_layout(layout);
    const bool blocks = layout.kind == WeightKind::kBlock;
    require(outputs > 0 && inputs > 0, "a weight has at least one output and one input");
    require(!blocks || inputs % kBlockInputs == 0, "block weights need a multiple of 32 inputs");
    require(!blocks || inputs % block_inputs(layout) == 0, "super scales need a multiple of 256 inputs");
    require(layout.kind != WeightKind::kPairs, "pairs are made of a weight in blocks");
    take_memory(outputs, inputs, layout, memory);
}

void PackedWeight::take_memory(std::int64_t outputs, std::int64_t inputs, const WeightLayout& layout,
                               WeightMemory* memory) {
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / 1024;
    require(outputs <= kMost && inputs <= kMost / (outputs + kPanelOutputs),
            "the weight is too large to address");
    const std::int64_t panel_bytes = (raw_panel_bytes(layout, inputs) + 63) / 64 * 64;
    const std::int64_t num_panels = (outputs + kPanelOutputs - 1) / kPanelOutputs;
    num_bytes_ = static_cast<std::size_t>(panel_bytes * num_panels);
    memory_ = memory != nullptr ? memory->take(num_bytes_) : memory_alone(num_bytes_);
    const bool blocks = layout.kind == WeightKind::kBlock;
    view_ = {memory_.get(), outputs, inputs, panel_bytes, blocks ? panel_block_bytes(layout) : 0, layout};
}

PackedWeight::PackedWeight(const PackedWeight& plain, int segment, WeightMemory* memory, ThreadPool& pool) {
    require(segment >= 1 && segment <= kMostSegmentPairs, "a segment has 1 to 9 pairs");
    require(has_pairs(plain.layout()),
            "pairs are made of 4 bits in groups of 32, with float16 minimums or an offset of 8");
    take_memory(plain.outputs(), plain.inputs(), pairs_layout(segment, plain.layout().has_minimum), memory);
    pool.run([&](int thread_id) {
        const std::int64_t threads = pool.num_threads();
        for (std::int64_t panel = num_panels() * thread_id / threads;
             panel < num_panels() * (thread_id + 1) / threads; ++panel)
            pack_pairs(plain.view(), panel, segment, memory_.get() + panel * view_.panel_bytes);
    });
}

template <typename Work>
void PackedWeight::for_panels(std::int64_t first_row, std::int64_t num_rows, ThreadPool& pool,
                              const Work& work) {
    require(first_row >= 0 && num_rows >= 0 && num_rows <= outputs() && first_row <= outputs() - num_rows,
            "the rows to pack lie outside the weight");
    const std::int64_t end = first_row + num_rows;
    const std::int64_t panel_begin = first_row / kPanelOutputs;
    const std::int64_t panels = (end + kPanelOutputs - 1) / kPanelOutputs - panel_begin;
    pool.run([&](int thread_id) {
        const std::int64_t threads = pool.num_threads();
        const std::int64_t begin_panel = panel_begin + panels * thread_id / threads;
        const std::int64_t end_panel = panel_begin + panels * (thread_id + 1) / threads;
        for (std::int64_t panel = begin_panel; panel < end_panel; ++panel) {
            const std::int64_t row = panel * kPanelOutputs, from = std::max(first_row, row);
            work(PanelRows{memory_.get() + panel * view_.panel_bytes, static_cast<int>(from - row),
                           static_cast<int>(std::min(end, row + kPanelOutputs) - row), from - first_row});
        }
    });
}

void PackedWeight::pack_codes(std::int64_t first_row, std::int64_t num_rows, const std::uint8_t* codes,
                              const float* scales, const float* minimums, ThreadPool& pool) {
    const WeightLayout& layout = view_.layout;
    require(layout.kind == WeightKind::kBlock, "codes cannot be packed into a float weight");
    require(!layout.super_scales, "a weight with super scales is packed from blocks of its file format");
    require((minimums != nullptr) == layout.has_minimum,
            "minimums must be given exactly when the layout has them");
    const std::int64_t blocks = inputs() / kBlockInputs, sets = scale_sets(layout);
    for_panels(first_row, num_rows, pool, [&](const PanelRows& rows) {
        for (int lane = rows.first; lane < rows.end; ++lane) {
            const std::int64_t source = rows.source + lane - rows.first;
            for (std::int64_t i = 0; i < blocks; ++i) {
                const std::int64_t at = source * blocks + i;
                StoredBlock block{};
                store_codes(layout, codes + at * kBlockInputs, block);
                for (std::int64_t s = 0; s < sets; ++s) {
                    block.scales[s] = stored_scale(layout, scales[at * sets + s]);
                    if (minimums != nullptr)
                        block.minimums[s] = stored_scale(layout, minimums[at * sets + s]);
                }
                put_block(block_place(rows.panel, i, layout), lane, layout, block);
            }
        }
    });
}

void PackedWeight::pack_floats(std::int64_t first_row, std::int64_t num_rows, const std::uint8_t* values,
                               ThreadPool& pool) {
    const WeightKind kind = view_.layout.kind;
    require(kind != WeightKind::kBlock, "floats cannot be packed into a block weight");
    const auto pack = kind == WeightKind::kF32   ? pack_float_run<WeightKind::kF32>
                      : kind == WeightKind::kF16 ? pack_float_run<WeightKind::kF16>
                                                 : pack_float_run<WeightKind::kBF16>;
    const std::int64_t row_bytes = inputs() * value_bytes(kind);
    for_panels(first_row, num_rows, pool, [&](const PanelRows& rows) {
        for (std::int64_t first = 0; first < inputs(); first += kRunInputs)
            for (int lane = rows.first; lane < rows.end; ++lane)
                pack(values + (rows.source + lane - rows.first) * row_bytes, first,
                     std::min(first + kRunInputs, inputs()), rows.panel, lane);
    });
}

void PackedWeight::pack_gguf(std::int64_t first_row, std::int64_t num_rows, const std::string& format,
                             const std::uint8_t* blocks, ThreadPool& pool) {
    const GgufBlockReader& reader = gguf_block_reader(format);
    require(same_layout(reader.layout, view_.layout), "the weight's layout is not that of the GGUF format");
    const std::int64_t row_bytes = gguf_row_bytes(format, inputs());
    const std::int64_t num_blocks = inputs() / reader.block_inputs, run = kRunInputs / reader.block_inputs;
    for_panels(first_row, num_rows, pool, [&](const PanelRows& rows) {
        for (std::int64_t first = 0; first < num_blocks; first += run)
            for (int lane = rows.first; lane < rows.end; ++lane)
                reader.pack(
                    blocks + (rows.source + lane - rows.first) * row_bytes + first * reader.block_bytes,
                    std::min(run, num_blocks - first), rows.panel + first * view_.block_bytes, lane);
    });
}

void PackedWeight::unpack_row(std::int64_t row, float* values) const {
    require(row >= 0 && row < outputs(), "the row lies outside the weight");
    const WeightLayout& layout = view_.layout;
    const std::uint8_t* panel = view_.data + row / kPanelOutputs * view_.panel_bytes;
    if (layout.kind == WeightKind::kPairs)
        return unpack_pairs(view_, row / kPanelOutputs, static_cast<int>(row % kPanelOutputs), values);
    if (layout.kind != WeightKind::kBlock) return unpack_float_row(row, values);
    BlockValues part;
    for (std::int64_t i = 0; i < inputs() / kBlockInputs; ++i) {
        get_block(block_place(panel, i, layout), static_cast<int>(row % kPanelOutputs), layout, part);
        for (int set = 0; set < kBlockInputs / layout.group; ++set) {
            const std::uint8_t* codes = part.codes + set * layout.group;
            for (int k = 0; k < layout.group; ++k) {
                const float scaled = part.scales[set] * static_cast<float>(codes[k] - layout.offset);
                *values++ = layout.has_minimum ? scaled + part.minimums[set] : scaled;
            }
        }
    }
}

void PackedWeight::unpack_float_row(std::int64_t row, float* values) const {
    const WeightKind kind = view_.layout.kind;
    const std::uint8_t* panel = view_.data + row / kPanelOutputs * view_.panel_bytes;
    for (std::int64_t k = 0; k < inputs(); ++k) {
        const std::uint8_t* place = panel + float_place(kind, k, row % kPanelOutputs);
        std::uint16_t half;
        std::memcpy(&half, place, 2);
        if (kind == WeightKind::kF32) {
            std::memcpy(values + k, place, 4);
        } else {
            values[k] = kind == WeightKind::kF16 ? widen_f16(half) : widen_bf16(half);
        }
    }
}

}  // namespace pelton
