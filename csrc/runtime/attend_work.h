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

namespace pelton {

struct AttendShape {
    int row_set;
    std::int64_t heads, kv_heads, head_dim, window;
    bool operator==(const AttendShape&) const = default;
};

// Neighbouring rows of one span whose queries run together.
struct AttendTile {
    std::int64_t first, rows;  // places in the row set
    std::int64_t span;
    std::int64_t chunk_begin, chunk_end;  // chunks that some row sees
    std::int64_t cost_before;             // of all tiles before, in units * chunks
    std::int64_t states_before;           // floats of partial states of all tiles before
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

    // Units are cut into chunks whose states are merged later: when replicated, or few units and long
    // contexts.
    bool split() const noexcept { return split_; }
    const std::vector<AttendTile>& tiles() const noexcept { return tiles_; }
    AttendScratch& scratch(int thread) noexcept { return *scratch_[thread]; }
    std::int64_t group() const noexcept { return shape_.heads / shape_.kv_heads; }
    std::int64_t heads_per_unit() const noexcept;
    std::int64_t units_per_tile() const noexcept;
    std::int64_t state_floats() const noexcept { return (kStateHeader + shape_.head_dim + 15) / 16 * 16; }
    // First and one after the last visible logical position of a batch row.
    RowRange visible(const Frame& frame, std::int64_t row) const noexcept;

    // Calls visit(unit) for everything that a thread has to do.
    template <typename Visit>
    void for_units(int thread, int num_threads, const Visit& visit) const;
    // Partial states [chunks, rows, heads of the unit] of a unit of a tile.
    float* partial_states(const AttendTile& tile, std::int64_t unit) const noexcept;

  private:
    void add_tiles(const Frame& frame);
    void allocate_scratch(const Frame& frame);

    AttendShape shape_;
    std::vector<AttendTile> tiles_;
    std::vector<std::unique_ptr<AttendScratch>> scratch_;
    AlignedBuffer partial_;
    std::int64_t total_cost_ = 0;
    bool split_ = false;
};

template <typename Visit>
void AttendWork::for_units(int thread, int num_threads, const Visit& visit) const {
    const RowRange own = share_of(total_cost_, thread, num_threads);
    const std::int64_t units = units_per_tile(), per_head = units / shape_.kv_heads;
    for (const AttendTile& tile : tiles_) {
        const std::int64_t chunks = tile.chunk_end - tile.chunk_begin;
        if (tile.cost_before + units * chunks <= own.begin || tile.cost_before >= own.end) continue;
        for (std::int64_t u = 0; u < units; ++u) {
            const std::int64_t start = tile.cost_before + u * chunks;
            const std::int64_t head = u / per_head * group() + u % per_head * heads_per_unit();
            const std::int64_t head_end = std::min(head + heads_per_unit(), (u / per_head + 1) * group());
            AttendUnit unit{&tile, u / per_head, head, head_end, tile.chunk_begin, tile.chunk_end, nullptr};
            if (split_) {
                const std::int64_t from = std::max(own.begin - start, std::int64_t{0});
                const std::int64_t to = std::min(own.end - start, chunks);
                if (from >= to) continue;
                unit.chunk_begin += from;
                unit.chunk_end = tile.chunk_begin + to;
                unit.states = partial_states(tile, u) + from * tile.rows * (head_end - head) * state_floats();
            } else if (start < own.begin || start >= own.end) {
                continue;
            }
            visit(unit);
        }
    }
}

}  // namespace pelton
