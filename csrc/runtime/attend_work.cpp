#include "runtime/attend_work.h"

namespace pelton {

std::int64_t AttendWork::heads_per_unit() const noexcept {
    return std::min<std::int64_t>(group(), kMaxTileQueries);
}

std::int64_t AttendWork::units_per_tile() const noexcept {
    return shape_.kv_heads * ((group() + heads_per_unit() - 1) / heads_per_unit());
}

RowRange AttendWork::visible(const Frame& frame, std::int64_t row) const noexcept {
    const std::int64_t end = std::int64_t{frame.batch.position(row)} + 1;
    return {shape_.window > 0 && end > shape_.window ? end - shape_.window : 0, end};
}

float* AttendWork::partial_states(const AttendTile& tile, std::int64_t unit) const noexcept {
    // Every unit but a head's last has the same number of heads; room for that many is kept for all.
    const std::int64_t chunks = tile.chunk_end - tile.chunk_begin;
    float* first = reinterpret_cast<float*>(const_cast<std::uint8_t*>(partial_.data())) + tile.states_before;
    return first + unit * chunks * tile.rows * heads_per_unit() * state_floats();
}

void AttendWork::add_tiles(const Frame& frame) {
    const RaggedBatch& batch = frame.batch;
    const std::int32_t* rows = batch.rows(shape_.row_set);
    const std::int64_t count = batch.rows_of(shape_.row_set);
    const std::int64_t most_rows = std::max<std::int64_t>(1, kMaxTileQueries / group());
    std::int64_t states = 0;
    tiles_.clear();
    total_cost_ = 0;
    for (std::int64_t i = 0; i < count;) {
        AttendTile tile{i, 1, batch.span_of(rows[i]), 0, 0, total_cost_, states};
        const bool alone = batch.scattered(rows[i]);
        while (!alone && tile.rows < most_rows && i + tile.rows < count &&
               batch.span_of(rows[i + tile.rows]) == tile.span && !batch.scattered(rows[i + tile.rows]))
            ++tile.rows;
        RowRange seen = visible(frame, rows[i]);
        for (std::int64_t r = 1; r < tile.rows; ++r) {
            const RowRange other = visible(frame, rows[i + r]);
            seen = {std::min(seen.begin, other.begin), std::max(seen.end, other.end)};
        }
        tile.chunk_begin = seen.begin / kChunkPositions;
        tile.chunk_end = (seen.end + kChunkPositions - 1) / kChunkPositions;
        const std::int64_t cost = units_per_tile() * (tile.chunk_end - tile.chunk_begin);
        total_cost_ += cost;
        states += cost * tile.rows * heads_per_unit() * state_floats();
        i += tile.rows;
        tiles_.push_back(tile);
    }
    const std::int64_t units = static_cast<std::int64_t>(tiles_.size()) * units_per_tile();
    split_ = frame.replicated || (units < 4 * frame.pool->num_threads() && total_cost_ > units);
    if (split_ && partial_.size() < static_cast<std::size_t>(states) * sizeof(float))
        partial_ = AlignedBuffer(static_cast<std::size_t>(states + states / 4) * sizeof(float));
}

void AttendWork::prepare(const Frame& frame) {
    add_tiles(frame);
    allocate_scratch(frame);
}

void AttendWork::allocate_scratch(const Frame& frame) {
    const std::int64_t queries = kMaxTileQueries * ((shape_.head_dim + 15) / 16 * 16);
    const std::int64_t scores = kMaxTileQueries * kChunkPositions, states = kMaxTileQueries * state_floats();
    scratch_.resize(static_cast<std::size_t>(frame.pool->num_threads()));
    for (std::unique_ptr<AttendScratch>& scratch : scratch_) {
        if (!scratch) {
            scratch = std::make_unique<AttendScratch>();
            scratch->memory =
                AlignedBuffer(static_cast<std::size_t>(queries + scores + 2 * states) * sizeof(float));
            scratch->queries = reinterpret_cast<float*>(scratch->memory.data());
            scratch->scores = scratch->queries + queries;
            scratch->states = scratch->scores + scores;
            scratch->later = scratch->states + states;
        }
        // Chunks are read whole blocks at a time, so the list ends at a chunk's end.
        const std::size_t blocks = static_cast<std::size_t>(frame.batch.max_position() / kChunkPositions + 1);
        scratch->keys.resize(blocks * kChunkBlocks);
        scratch->values.resize(blocks * kChunkBlocks);
    }
}

}  // namespace pelton
