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

RowRange AttendWork::unit_heads(std::int64_t unit) const noexcept {
    const std::int64_t per_head = units_per_tile() / shape_.kv_heads, kv_head = unit / per_head;
    const std::int64_t first = kv_head * group() + unit % per_head * heads_per_unit();
    return {first, std::min(first + heads_per_unit(), (kv_head + 1) * group())};
}

AttendUnit AttendWork::whole_unit(const AttendTile& tile, std::int64_t unit) const noexcept {
    const RowRange heads = unit_heads(unit);
    const std::int64_t kv_head = unit / (units_per_tile() / shape_.kv_heads);
    return {&tile, kv_head, heads.begin, heads.end, tile.own_begin, tile.chunk_end, nullptr};
}

AttendUnit AttendWork::unit(std::int64_t index) const noexcept {
    const std::int64_t units = units_per_tile();
    return whole_unit(tiles_[static_cast<std::size_t>(index / units)], index % units);
}

float* AttendWork::partial_states(const AttendTile& tile, std::int64_t unit,
                                  std::int64_t chunk) const noexcept {
    // Every unit but a head's last has the same number of heads; room for that many is kept for all.
    const std::int64_t chunks = tile.chunk_end - tile.chunk_begin, heads = unit_heads(unit).size();
    float* first = reinterpret_cast<float*>(const_cast<std::uint8_t*>(partial_.data())) + tile.states_before;
    return first + (unit * chunks * heads_per_unit() + (chunk - tile.chunk_begin) * heads) * tile.rows *
                       state_floats();
}

void AttendWork::add_tiles(const Frame& frame) {
    const RaggedBatch& batch = frame.batch;
    const std::int32_t* rows = batch.rows(shape_.row_set);
    const std::int64_t count = batch.rows_of(shape_.row_set);
    const std::int64_t most_rows = std::max<std::int64_t>(1, kMaxTileQueries / group());
    tiles_.clear();
    for (std::int64_t i = 0; i < count;) {
        AttendTile tile{i, 1, batch.span_of(rows[i]), 0, 0, 0, 0, false, 0, 0};
        const bool alone = batch.scattered(rows[i]);
        while (!alone && tile.rows < most_rows && i + tile.rows < count &&
               batch.span_of(rows[i + tile.rows]) == tile.span && !batch.scattered(rows[i + tile.rows]))
            ++tile.rows;
        RowRange seen = visible(frame, rows[i]);
        for (std::int64_t r = 1; r < tile.rows; ++r) {
            const RowRange other = visible(frame, rows[i + r]);
            seen = {std::min(seen.begin, other.begin), std::max(seen.end, other.end)};
        }
        tile.chunk_begin = tile.own_begin = seen.begin / kChunkPositions;
        tile.chunk_end = (seen.end + kChunkPositions - 1) / kChunkPositions;
        tile.block_end = (seen.end + kKvBlock - 1) / kKvBlock;
        i += tile.rows;
        tiles_.push_back(tile);
    }
}

// Finds the tiles that begin with the same blocks, where two of them fit one call of the kernel.
void AttendWork::share_prefixes(const Frame& frame) {
    readers_.clear();
    runs_.clear();
    if (!frame.share_prefixes) return;
    for (std::size_t i = 0; i < tiles_.size(); ++i) {
        const AttendTile& tile = tiles_[i];
        const std::int64_t context = frame.batch.context_of(tile.span),
                           queries = tile.rows * heads_per_unit();
        if (shape_.window == 0 && context >= kChunkPositions && 2 * queries <= kMaxTileQueries)
            readers_.push_back({static_cast<std::int64_t>(i), tile.span, context / kChunkPositions, queries});
    }
    runs_ = find_shared_prefixes(frame.batch, kChunkBlocks, kMaxTileQueries, readers_);
    for (const PrefixRun& run : runs_)
        for (std::int64_t place = run.first; place < run.first + run.count; ++place) {
            AttendTile& tile =
                tiles_[static_cast<std::size_t>(readers_[static_cast<std::size_t>(place)].tile)];
            tile.own_begin = std::max(tile.own_begin, run.chunk_end);
        }
}

std::int64_t AttendWork::saved_chunks() const noexcept {
    std::int64_t saved = 0;
    for (const PrefixRun& run : runs_) saved += (run.count - 1) * (run.chunk_end - run.chunk_begin);
    return saved;
}

void AttendWork::share_out(const Frame& frame) {
    total_cost_ = 0;
    bool has_several_chunks = false;
    for (AttendTile& tile : tiles_) {
        tile.cost_before = total_cost_;
        total_cost_ += units_per_tile() * tile.own_blocks();
        has_several_chunks = has_several_chunks || tile.chunk_end - tile.own_begin > 1;
    }
    const std::int64_t units = static_cast<std::int64_t>(tiles_.size()) * units_per_tile();
    const bool all = frame.replicated || (units < 4 * frame.pool->num_threads() && has_several_chunks);
    std::int64_t states = 0;
    split_ = false;
    for (AttendTile& tile : tiles_) {
        tile.split = all || tile.own_begin > tile.chunk_begin;
        tile.states_before = states;
        if (!tile.split) continue;
        split_ = true;
        states += units_per_tile() * (tile.chunk_end - tile.chunk_begin) * tile.rows * heads_per_unit() *
                  state_floats();
    }
    if (partial_.size() < static_cast<std::size_t>(states) * sizeof(float))
        partial_ = AlignedBuffer(static_cast<std::size_t>(states + states / 4) * sizeof(float));
}

void AttendWork::prepare(const Frame& frame) {
    add_tiles(frame);
    share_prefixes(frame);
    share_out(frame);
    allocate_scratch(frame);
    list_runs(frame);
}

// A thread's share of the tiles by what they cost, from the end at which SharedItems has it begin.
void AttendWork::list_runs(const Frame& frame) {
    const int threads = frame.pool->num_threads();
    ahead_.assign(static_cast<std::size_t>(threads), {});
    layer_bytes_ = frame.kv.heads * head_block_bytes(frame.kv.format, frame.kv.head_dim);
    run_bytes_ = (layer_bytes_ / runs_per_block() + 63) / 64 * 64;
    const std::int64_t blocks_each = total_cost_ / (units_per_tile() * threads);
    if (!takes_turns(threads) || !frame.batch.single_rows() || 2 * blocks_each * layer_bytes_ > kMostAhead)
        return;
    for (int thread = 0; thread < threads; ++thread) {
        std::vector<const std::uint8_t*>& runs = ahead_[static_cast<std::size_t>(thread)];
        const RowRange own = share_of(total_cost_, thread, threads);
        for (const AttendTile& tile : tiles_)
            if (tile.cost_before >= own.begin && tile.cost_before < own.end) list_tile(frame, tile, runs);
        if (thread % 2 == 1) std::reverse(runs.begin(), runs.end());
    }
}

void AttendWork::list_tile(const Frame& frame, const AttendTile& tile,
                           std::vector<const std::uint8_t*>& runs) const {
    for (std::int64_t b = tile.chunk_begin * kChunkBlocks; b < tile.block_end; ++b) {
        const std::int64_t place = frame.kv.offset(frame.batch.block(tile.span, b), 0, 0);
        for (const std::uint8_t* from : {frame.kv.keys + place, frame.kv.values + place})
            for (std::int64_t run = 0; run < runs_per_block(); ++run) runs.push_back(from + run * run_bytes_);
    }
}

ReadAhead AttendWork::ahead(int thread, std::int64_t layer) const noexcept {
    const std::vector<const std::uint8_t*>& runs = ahead_[static_cast<std::size_t>(thread)];
    return {runs.data(), static_cast<std::int64_t>(runs.size()), run_bytes_, layer * layer_bytes_, 0};
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
        const std::size_t blocks =
            static_cast<std::size_t>(frame.batch.max_position() / kChunkPositions + 1) * kChunkBlocks;
        scratch->keys.resize(blocks + kKeysAhead);
        scratch->values.resize(blocks);
    }
}

}  // namespace pelton
