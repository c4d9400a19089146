#include "runtime/batch.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/errors.h"
#include "kernels/attention.h"

namespace pelton {

namespace {

void copy(std::vector<std::int32_t>& to, const std::int32_t* from, std::int64_t count) {
    to.assign(from, from + count);
}

}  // namespace

void RaggedBatch::assign(const BatchArrays& arrays, const std::vector<RowSetView>& row_sets,
                         std::int64_t num_blocks) {
    const std::int64_t rows = arrays.num_rows, spans = arrays.num_spans;
    require(rows > 0 && spans > 0 && rows <= std::numeric_limits<std::int32_t>::max(),
            "a batch has rows and spans");
    most_blocks_ = arrays.most_blocks;
    copy(tokens_, arrays.tokens, rows);
    copy(positions_, arrays.positions, rows);
    copy(slots_, arrays.slots, rows);
    copy(parents_, arrays.parents, rows);
    copy(span_start_, arrays.span_start, spans + 1);
    copy(context_, arrays.context, spans);
    copy(is_tree_, arrays.is_tree, spans);
    copy(tables_, arrays.tables, spans * most_blocks_);
    require(span_start_.front() == 0 && span_start_.back() == rows, "span_start must run from 0 to the rows");
    check_spans(num_blocks);
    span_of_.resize(static_cast<std::size_t>(rows));
    path_start_.assign(static_cast<std::size_t>(rows), -1);
    path_.clear();
    for (std::int64_t span = 0; span < spans; ++span) check_rows(span);
    max_position_ = *std::max_element(positions_.begin(), positions_.end());
    sets_.resize(row_sets.size() + 1);
    sets_[0].resize(static_cast<std::size_t>(rows));
    std::iota(sets_[0].begin(), sets_[0].end(), 0);
    for (std::size_t i = 0; i < row_sets.size(); ++i) {
        copy(sets_[i + 1], row_sets[i].rows, row_sets[i].count);
        std::int32_t before = -1;
        for (const std::int32_t row : sets_[i + 1]) {
            require(row > before && row < rows, "a row set lists rows of the batch in ascending order");
            before = row;
        }
    }
}

void RaggedBatch::move_on(const std::vector<std::int32_t>& tokens, std::int64_t num_blocks) {
    require(single_rows_ && tokens.size() == tokens_.size(), "only spans of one row each move on");
    tokens_ = tokens;
    for (std::vector<std::int32_t>* places : {&positions_, &slots_, &context_})
        for (std::int32_t& place : *places) ++place;
    ++max_position_;
    check_spans(num_blocks);
}

void RaggedBatch::check_spans(std::int64_t num_blocks) {
    single_rows_ = true;
    blocks_used_ = 0;
    for (std::int64_t span = 0; span < num_spans(); ++span) {
        const std::int64_t rows = span_start_[span + 1] - std::int64_t{span_start_[span]};
        require(rows > 0 && context_[span] >= 0, "a span has rows and a context of 0 or more");
        require(context_[span] + rows <= kMostPositions, "a sequence has at most 2^24 positions");
        single_rows_ = single_rows_ && rows == 1;
        const std::int64_t needed = (context_[span] + rows + kKvBlock - 1) / kKvBlock;
        require(needed <= most_blocks_, "a block table does not cover its span");
        for (std::int64_t i = 0; i < needed; ++i) {
            require(block(span, i) >= 0 && block(span, i) < num_blocks, "a block table names no block");
            blocks_used_ = std::max(blocks_used_, block(span, i) + std::int64_t{1});
        }
    }
}

void RaggedBatch::check_rows(std::int64_t span) {
    const std::int32_t first = span_start_[span], end = span_start_[span + 1];
    for (std::int32_t row = first; row < end; ++row) {
        span_of_[row] = static_cast<std::int32_t>(span);
        const std::int32_t own = context_[span] + (row - first), parent = parents_[row];
        require(slots_[row] == own, "rows of a span lie in successive slots after its context");
        if (is_tree_[span] == 0) {
            require(positions_[row] == own, "a row outside a tree has its slot as position");
            continue;
        }
        require(parent == -1 || (parent >= first && parent < row), "a parent is an earlier row of its span");
        const std::int32_t above = parent < 0 ? context_[span] - 1 : positions_[parent];
        require(positions_[row] == above + 1, "a tree row's position is one after its parent's");
        if (positions_[row] != own) add_path(span, row);
    }
}

// A row whose position is its slot has only ancestors of that kind, so it needs no path.
void RaggedBatch::add_path(std::int64_t span, std::int64_t row) {
    path_start_[row] = static_cast<std::int64_t>(path_.size());
    const std::int64_t length = positions_[row] - context_[span] + 1;
    path_.resize(path_.size() + static_cast<std::size_t>(length));
    std::int32_t* place = path_.data() + path_.size();
    for (std::int64_t at = row; at >= 0; at = parents_[at]) *--place = slots_[at];
}

}  // namespace pelton
