// A weight matrix in the layout the linear kernels stream; see kernels/linear.h for the layout itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/thread_pool.h"
#include "core/weight_memory.h"
#include "kernels/linear.h"

namespace pelton {

// Throws Error(kInvalidArgument) unless the layout is one the kernels know.
void check_layout(const WeightLayout& layout);

// Filled in slices of rows, so that loading a file needs little more memory than the result; rows not filled
// are zero. Filling is not safe against concurrent use of the same rows; reading is.
class PackedWeight {
  public:
    // [outputs, inputs] of zeros; inputs a multiple of 32 for block layouts, of 256 with super scales. Throws
    // Error. Beside the weights that `memory` already holds, or alone.
    PackedWeight(std::int64_t outputs, std::int64_t inputs, const WeightLayout& layout,
                 WeightMemory* memory = nullptr);

    // The same weight in pairs of blocks, from one that has_pairs(), with `segment` of them to a unit of
    // activations: see weight_pairs.h. Throws Error.
    PackedWeight(const PackedWeight& plain, int segment, WeightMemory* memory, ThreadPool& pool);

    std::int64_t outputs() const noexcept { return view_.outputs; }
    std::int64_t inputs() const noexcept { return view_.inputs; }
    std::int64_t num_panels() const noexcept { return (view_.outputs + kPanelOutputs - 1) / kPanelOutputs; }
    std::size_t num_bytes() const noexcept { return num_bytes_; }
    const WeightLayout& layout() const noexcept { return view_.layout; }
    // Not floats, nor pairs: what WeightReading.prepared speaks of.
    bool has_blocks() const noexcept { return view_.layout.kind == WeightKind::kBlock; }
    const WeightView& view() const noexcept { return view_; }

    // Rows first_row.. from codes [num_rows, inputs], scales and minimums [num_rows, inputs / group];
    // minimums null exactly when the layout has none. Codes are not checked against the layout's bits; excess
    // is cut.
    void pack_codes(std::int64_t first_row, std::int64_t num_rows, const std::uint8_t* codes,
                    const float* scales, const float* minimums, ThreadPool& pool);
    // Rows of a float layout from its own number type, [num_rows, inputs] without gaps.
    void pack_floats(std::int64_t first_row, std::int64_t num_rows, const std::uint8_t* values,
                     ThreadPool& pool);
    // Rows straight from the blocks of a GGUF file; `format` is a name gguf_layout knows and gives this
    // layout.
    void pack_gguf(std::int64_t first_row, std::int64_t num_rows, const std::string& format,
                   const std::uint8_t* blocks, ThreadPool& pool);

    // Row `row` as float32 [inputs]: for blocks scale * (code - offset), rounded, + minimum.
    void unpack_row(std::int64_t row, float* values) const;

  private:
    // Rows of one panel to be filled: lanes first..end, from row `source` of what they are filled from on.
    struct PanelRows {
        std::uint8_t* panel;
        int first, end;
        std::int64_t source;
    };
    // Calls work(PanelRows) for every panel with such rows, all of one on one thread.
    template <typename Work>
    void for_panels(std::int64_t first_row, std::int64_t num_rows, ThreadPool& pool, const Work& work);
    void unpack_float_row(std::int64_t row, float* values) const;
    void take_memory(std::int64_t outputs, std::int64_t inputs, const WeightLayout& layout,
                     WeightMemory* memory);

    std::shared_ptr<std::uint8_t> memory_;
    std::size_t num_bytes_ = 0;
    WeightView view_{};
};

// GGUF formats that pack_gguf reads, with the bytes of one row of `inputs` values and the panel layout.
bool reads_gguf(const std::string& format) noexcept;
WeightLayout gguf_layout(const std::string& format);
std::int64_t gguf_row_bytes(const std::string& format, std::int64_t inputs);

}  // namespace pelton
