// A ragged batch of spans, checked and copied once per forward pass: what every instruction may index by.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace pelton {

// Positions are compared as float32 (kernels/attention.cpp), which is exact below this.
constexpr std::int64_t kMostPositions = std::int64_t{1} << 24;

// The arrays of pelton.types.Batch. T rows, S spans, `most_blocks` columns of the block tables.
struct BatchArrays {
    std::int64_t num_rows, num_spans, most_blocks;
    const std::int32_t *tokens, *positions, *slots, *parents;  // [T]
    const std::int32_t* span_start;                            // [S + 1]
    const std::int32_t *context, *is_tree;                     // [S]
    const std::int32_t* tables;                                // [S, most_blocks]
};

constexpr int kAllRows = 0;  // the row set

struct RowSetView {
    const std::int32_t* rows;  // batch rows, ascending
    std::int64_t count;
};

// Keys [blocks, layers, heads, head_dim, 32] and values [blocks, layers, heads, 32, head_dim]; of bfloat16
// and int8 the runs that KvFormat speaks of.
struct KvArrays {
    std::uint8_t *keys, *values;
    std::int64_t num_blocks, layers, heads, head_dim;
    KvFormat format;

    // Bytes to one head of one layer of one block.
    std::int64_t offset(std::int64_t block, std::int64_t layer, std::int64_t head) const noexcept {
        return ((block * layers + layer) * heads + head) * head_block_bytes(format, head_dim);
    }
};

class RaggedBatch {
  public:
    // Copies and checks: every index a kernel will follow lies inside. `row_sets[0]` becomes all rows; the
    // others are `row_sets` in order. Throws Error(kInvalidArgument).
    void assign(const BatchArrays& arrays, const std::vector<RowSetView>& row_sets, std::int64_t num_blocks);
    // The same spans, of one row each, a position on: these tokens follow [T]. Row sets stay. Throws as
    // assign.
    void move_on(const std::vector<std::int32_t>& tokens, std::int64_t num_blocks);

    std::int64_t num_rows() const noexcept { return static_cast<std::int64_t>(tokens_.size()); }
    std::int64_t num_spans() const noexcept { return static_cast<std::int64_t>(context_.size()); }
    std::int64_t most_blocks() const noexcept { return most_blocks_; }
    std::int64_t rows_of(int row_set) const noexcept {
        return static_cast<std::int64_t>(sets_[row_set].size());
    }
    const std::int32_t* rows(int row_set) const noexcept { return sets_[row_set].data(); }
    const std::int32_t* tokens() const noexcept { return tokens_.data(); }
    const std::int32_t* positions() const noexcept { return positions_.data(); }
    std::int32_t slot(std::int64_t row) const noexcept { return slots_[row]; }
    std::int32_t position(std::int64_t row) const noexcept { return positions_[row]; }
    std::int32_t span_of(std::int64_t row) const noexcept { return span_of_[row]; }
    std::int32_t context_of(std::int64_t span) const noexcept { return context_[span]; }
    std::int32_t block(std::int64_t span, std::int64_t index) const noexcept {
        return tables_[span * most_blocks_ + index];
    }
    std::int64_t blocks_used() const noexcept { return blocks_used_; }  // 1 + the highest number of one
    std::int32_t max_position() const noexcept { return max_position_; }
    bool single_rows() const noexcept { return single_rows_; }  // every span has one row

    // True when a row's ancestors do not lie at their own logical positions. Then `path` gives the slot of
    // the row's logical positions context, context + 1, ..., its own.
    bool scattered(std::int64_t row) const noexcept { return path_start_[row] >= 0; }
    const std::int32_t* path(std::int64_t row) const noexcept { return path_.data() + path_start_[row]; }

  private:
    void check_spans(std::int64_t num_blocks);
    void check_rows(std::int64_t span);
    void add_path(std::int64_t span, std::int64_t row);

    std::vector<std::int32_t> tokens_, positions_, slots_, parents_, span_start_, context_, is_tree_, tables_;
    std::vector<std::int32_t> span_of_, path_;
    std::vector<std::int64_t> path_start_;
    std::vector<std::vector<std::int32_t>> sets_;
    std::int64_t most_blocks_ = 0, blocks_used_ = 0;
    std::int32_t max_position_ = 0;
    bool single_rows_ = true;
};

}  // namespace pelton
