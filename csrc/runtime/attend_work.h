// How the rows of a pass are cut into attention tiles and the tiles into work for threads. Shared by all
// layers of one shape; made once per pass.
//
// Splitting a long context over threads is FlashDecoding's; as in FlashDecoding++ the shape picks the
// dataflow. Unlike theirs, partial results merge in one fixed order, so the split changes no bit.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "core/aligned_buffer.h"
#include "kernels/attention.h"
#include "runtime/frame.h"
#include "runtime/shared_prefix.h"

namespace pelton {

// Keys and values of a layer that one thread asks for during the products before, at most: what is more than
// the caches hold only takes its place from weights (24 sequences of 600 tokens, 3 MB a thread: 4 % slower).
// With 48 sequences of 150 tokens attention takes 2.4 instead of 4.1 ms of a step, and products 1.1 ms more.
constexpr std::int64_t kMostAhead = 2 << 20;
constexpr std::int64_t kRunBytes = 4096;  // of those, at most, for one tile of a product

// Fewer for each thread are shared out by what they cost, and stay where the last pass had them.
constexpr std::int64_t kUnitsEach = 8;

struct AttendShape {
    int row_set;  // of the queries; keys and values are of all rows
    std::int64_t heads, kv_heads, head_dim, window;
    bool operator==(const AttendShape&) const = default;
};

// Neighbouring rows of one span whose queries run together.
struct AttendTile {
    std::int64_t first, rows;  // places in the row set
    std::int64_t span;
    std::int64_t chunk_begin, chunk_end;  // chunks that some row sees
    std::int64_t own_begin;               // chunks before are read together with other tiles
    std::int64_t block_end;               // one after the last block that some row sees
    bool split;                           // the states of chunks are merged later
    std::int64_t cost_before;             // of all tiles before, in units * blocks
    std::int64_t states_before;           // floats of partial states of all tiles before

    std::int64_t own_blocks() const noexcept {
        return std::max(block_end - own_begin * kChunkBlocks, std::int64_t{0});
    }
};

// Tiles that read the same chunks, and one key-value head: see shared_prefix.h.
struct SharedUnit {
    const PrefixRun* run;
    std::int64_t unit;  // of each of the tiles
    std::int64_t kv_head, head_begin, head_end;
    std::int64_t chunk_begin, chunk_end;
};

// One tile, one key-value head, some of the query heads that share it.
struct AttendUnit {
    const AttendTile* tile;
    std::int64_t kv_head, head_begin, head_end;  // query heads
    std::int64_t chunk_begin, chunk_end;
    float* states;  // partial states from chunk_begin on, or null: finish here
};

struct AttendScratch {
    AlignedBuffer memory;
    float *queries, *scores, *states, *later;
    std::int32_t begins[kMaxTileQueries], ends[kMaxTileQueries];
    std::vector<const void*> keys, values;  // of logical block i
    std::vector<std::uint8_t> gathered;     // blocks of rows whose ancestors are scattered
};

class AttendWork {
  public:
    explicit AttendWork(const AttendShape& shape) : shape_(shape) {}

    const AttendShape& shape() const noexcept { return shape_; }
    void prepare(const Frame& frame);

    // Some tile is cut into chunks whose states are merged later: all of them when replicated, or when units
    // are few and contexts long; else those that share a prefix.
    bool split() const noexcept { return split_; }
    const std::vector<AttendTile>& tiles() const noexcept { return tiles_; }
    const AttendTile& reader(std::int64_t place) const noexcept {
        return tiles_[static_cast<std::size_t>(readers_[static_cast<std::size_t>(place)].tile)];
    }
    // Reads of a chunk that are saved because tiles share it.
    std::int64_t saved_chunks() const noexcept;
    AttendScratch& scratch(int thread) noexcept { return *scratch_[thread]; }
    std::int64_t group() const noexcept { return shape_.heads / shape_.kv_heads; }
    std::int64_t heads_per_unit() const noexcept;
    std::int64_t units_per_tile() const noexcept;
    std::int64_t state_floats() const noexcept { return (kStateHeader + shape_.head_dim + 15) / 16 * 16; }
    // First and one after the last visible logical position of a batch row.
    RowRange visible(const Frame& frame, std::int64_t row) const noexcept;

    // Calls visit(unit) for everything that a thread has to do where tiles are split, or units are few.
    template <typename Visit>
    void for_units(int thread, int num_threads, const Visit& visit) const;
    // Else threads take units as they come free: how many there are, and unit `index` of them.
    bool takes_turns(int num_threads) const noexcept {
        return !split_ && num_units() >= kUnitsEach * num_threads;
    }
    std::int64_t num_units() const noexcept {
        return static_cast<std::int64_t>(tiles_.size()) * units_per_tile();
    }
    AttendUnit unit(std::int64_t index) const noexcept;
    // The same for chunks that several tiles read.
    template <typename Visit>
    void for_shared_units(int thread, int num_threads, const Visit& visit) const;
    // Partial states [chunks, rows, heads of the unit] of a unit of a tile that is split, from a chunk on.
    float* partial_states(const AttendTile& tile, std::int64_t unit, std::int64_t chunk) const noexcept;
    // What a thread asks for before the attention of `layer`: nothing where its reading takes no time, as
    // with prompts, or more memory than kMostAhead.
    ReadAhead ahead(int thread, std::int64_t layer) const noexcept;
    // Query heads of a unit.
    RowRange unit_heads(std::int64_t unit) const noexcept;

  private:
    void add_tiles(const Frame& frame);
    void share_prefixes(const Frame& frame);
    void share_out(const Frame& frame);
    void allocate_scratch(const Frame& frame);
    void list_runs(const Frame& frame);
    void list_tile(const Frame& frame, const AttendTile& tile, std::vector<const std::uint8_t*>& runs) const;
    std::int64_t runs_per_block() const noexcept { return (layer_bytes_ + kRunBytes - 1) / kRunBytes; }
    AttendUnit whole_unit(const AttendTile& tile, std::int64_t unit) const noexcept;

    AttendShape shape_;
    std::vector<AttendTile> tiles_;
    std::vector<PrefixReader> readers_;
    std::vector<PrefixRun> runs_;
    std::vector<std::unique_ptr<AttendScratch>> scratch_;
    AlignedBuffer partial_;
    std::vector<std::vector<const std::uint8_t*>> ahead_;  // of each thread, in layer 0
    std::int64_t run_bytes_ = 0, layer_bytes_ = 0;
    std::int64_t total_cost_ = 0;
    bool split_ = false;
};

template <typename Visit>
void AttendWork::for_units(int thread, int num_threads, const Visit& visit) const {
    const RowRange own = share_of(total_cost_, thread, num_threads);
    const std::int64_t units = units_per_tile();
    for (const AttendTile& tile : tiles_) {
        const std::int64_t chunks = tile.chunk_end - tile.own_begin, blocks = tile.own_blocks();
        if (tile.cost_before + units * blocks <= own.begin || tile.cost_before >= own.end) continue;
        const auto chunk_at = [&](std::int64_t cost) {  // chunks that begin before
            return std::clamp((cost + kChunkBlocks - 1) / kChunkBlocks, std::int64_t{0}, chunks);
        };
        for (std::int64_t u = 0; u < units; ++u) {
            const std::int64_t start = tile.cost_before + u * blocks;
            AttendUnit unit = whole_unit(tile, u);
            if (tile.split) {
                const std::int64_t from = chunk_at(std::max(own.begin, start) - start);
                const std::int64_t to = chunk_at(std::max(own.end, start) - start);
                if (from >= to) continue;
                unit.chunk_begin += from;
                unit.chunk_end = tile.own_begin + to;
                unit.states = partial_states(tile, u, unit.chunk_begin);
            } else if (start < own.begin || start >= own.end) {
                continue;
            }
            visit(unit);
        }
    }
}

template <typename Visit>
void AttendWork::for_shared_units(int thread, int num_threads, const Visit& visit) const {
    std::int64_t total = 0;
    const std::int64_t units = units_per_tile(), per_head = units / shape_.kv_heads;
    for (const PrefixRun& run : runs_) total += run.count * (run.chunk_end - run.chunk_begin) * units;
    const RowRange own = share_of(total, thread, num_threads);
    std::int64_t start = 0;
    for (const PrefixRun& run : runs_) {
        const std::int64_t chunks = run.chunk_end - run.chunk_begin;
        for (std::int64_t u = 0; u < units; ++u, start += chunks * run.count) {
            const auto chunk_at = [&](std::int64_t cost) {  // chunks that begin before
                return std::clamp((cost - start + run.count - 1) / run.count, std::int64_t{0}, chunks);
            };
            const std::int64_t from = chunk_at(std::max(own.begin, start)),
                               to = chunk_at(std::max(own.end, start));
            const RowRange heads = unit_heads(u);
            if (from < to)
                visit(SharedUnit{&run, u, u / per_head, heads.begin, heads.end, run.chunk_begin + from,
                                 run.chunk_begin + to});
        }
    }
}

}  // namespace pelton
