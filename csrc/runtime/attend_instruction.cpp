#include "runtime/attend_instruction.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace pelton {

namespace {

// Neighbouring heads of one row.
void rotate_heads(const Frame& frame, const RopeTable* table, std::int64_t position, const float* x, float* y,
                  std::int64_t count, std::int64_t dim) {
    if (table == nullptr) {
        std::memcpy(y, x, static_cast<std::size_t>(count * dim) * sizeof(float));
        return;
    }
    const RopeSpec& spec = table->spec();
    frame.kernels->rope.rotate({x, y, table->at(position), count, dim,
                                static_cast<std::int64_t>(spec.frequencies.size()), spec.interleaved});
}

}  // namespace

AttendInstruction::AttendInstruction(int q, int k, int v, int output, AttendSpec spec,
                                     std::shared_ptr<AttendWork> work)
    : q_(q), k_(k), v_(v), output_(output), spec_(std::move(spec)), work_(std::move(work)) {
    for (const int value : {q, k, v}) reads(value, false);
    writes(output, false);
}

void AttendInstruction::check(const ValueCheck& values) const {
    const AttendShape& shape = work_->shape();
    values.that(
        shape.heads > 0 && shape.heads <= 65536 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0,
        "1 to 65536 query heads must divide into key heads");
    // A rotated key lies in the scratch of scores.
    values.that(shape.head_dim > 0 && shape.head_dim <= kChunkPositions * kMaxTileQueries,
                "a head has 1 to 6144 elements");
    values.that(shape.window >= 0 && spec_.kv_layer >= 0, "a window or layer is negative");
    values.shape("q", q_, shape.heads * shape.head_dim, shape.row_set);
    values.shape("k", k_, shape.kv_heads * shape.head_dim, kAllRows);
    values.shape("v", v_, shape.kv_heads * shape.head_dim, kAllRows);
    values.shape("the output", output_, shape.heads * shape.head_dim, shape.row_set);
    for (const auto& table : {spec_.query_rope, spec_.key_rope})
        values.that(!table || table->spec().head_dim == shape.head_dim, "rope turns heads of another size");
}

void AttendInstruction::prepare(const Frame& frame) {
    if (spec_.wants_mass)
        mass_.assign(static_cast<std::size_t>(frame.batch.num_spans() * frame.batch.most_blocks() * kKvBlock),
                     0.0f);
}

void AttendInstruction::start(const Frame& frame) {
    const int threads = frame.pool->num_threads();
    if (work_->takes_turns(threads)) units_.cut(work_->num_units(), threads);
}

// Spans of one row need no meeting if each has a query: whoever reads its newest chunk stores into it first.
bool AttendInstruction::stores_first(const RaggedBatch& batch) const noexcept {
    const AttendShape& shape = work_->shape();
    return !batch.single_rows() || work_->units_per_tile() != shape.kv_heads ||
           batch.rows_of(shape.row_set) != batch.num_rows();
}

void AttendInstruction::run(const Frame& frame, int thread) const {
    const int threads = frame.pool->num_threads();
    const bool store_first = stores_first(frame.batch);
    if (store_first) {
        const RowRange own = share_of(frame.batch.num_rows(), thread, threads);
        for (std::int64_t row = own.begin; row < own.end; ++row)
            store_row(frame, row, {0, work_->shape().kv_heads}, thread);
        frame.meet(thread);
    }
    work_->for_shared_units(thread, threads,
                            [&](const SharedUnit& unit) { run_shared_unit(frame, unit, thread); });
    run_units(frame, store_first, thread);
    frame.ahead[thread] = next_ == nullptr ? ReadAhead{} : next_->ahead(thread, next_layer_);
    if (work_->split()) {
        frame.meet(thread);
        merge_rows(frame, thread);
    }
    if (spec_.wants_mass) {
        frame.meet(thread);
        for (const AttendTile& tile : work_->tiles())
            if (tile.span % threads == thread) add_span_mass(frame, tile, thread);
        frame.meet(thread);
    }
}

// A unit runs when the next one is known: its keys are asked for ahead, and the stores into its newest block
// have time to reach it.
void AttendInstruction::run_units(const Frame& frame, bool store_first, int thread) const {
    std::optional<AttendUnit> current;
    const auto visit = [&](const AttendUnit& next) {
        if (!store_first && next.chunk_end == next.tile->chunk_end)
            store_row(frame, next.tile->first, {next.kv_head, next.kv_head + 1}, thread);
        if (current) run_unit(frame, *current, &next, thread);
        current = next;
    };
    const int threads = frame.pool->num_threads();
    if (work_->takes_turns(threads))
        units_.for_items(thread, [&](std::int64_t item, std::int64_t) { visit(work_->unit(item)); });
    else
        work_->for_units(thread, threads, visit);
    if (current) run_unit(frame, *current, nullptr, thread);
}

void AttendInstruction::store_row(const Frame& frame, std::int64_t row, RowRange kv_heads, int thread) const {
    const KvArrays& kv = frame.kv;
    const std::int64_t slot = frame.batch.slot(row), dim = kv.head_dim;
    const std::int64_t block = frame.batch.block(frame.batch.span_of(row), slot / kKvBlock);
    float* rotated = work_->scratch(thread).scores;
    for (std::int64_t head = kv_heads.begin; head < kv_heads.end; ++head) {
        const float* key = frame.value(k_, thread) + row * frame.width(k_) + head * dim;
        rotate_heads(frame, spec_.key_rope.get(), frame.batch.position(row), key, rotated, 1, dim);
        const std::int64_t place = kv.offset(block, spec_.kv_layer, head);
        frame.kernels->attention.store_kv(rotated,
                                          frame.value(v_, thread) + row * frame.width(v_) + head * dim, dim,
                                          kv.format, slot % kKvBlock, kv.keys + place, kv.values + place);
    }
}

// Queries [rows, heads] of a tile as those from `first` on of the scratch.
void AttendInstruction::load_queries(const Frame& frame, const AttendTile& tile, RowRange heads,
                                     std::int64_t first, int thread) const {
    AttendScratch& scratch = work_->scratch(thread);
    const std::int32_t* rows = frame.batch.rows(work_->shape().row_set);
    const std::int64_t dim = work_->shape().head_dim;
    float* const queries = scratch.queries + first * dim;
    float* query = queries;
    for (std::int64_t r = 0; r < tile.rows; ++r, query += heads.size() * dim) {
        const std::int64_t index = tile.first + r;
        const float* x = frame.value(q_, thread) + index * frame.width(q_) + heads.begin * dim;
        rotate_heads(frame, spec_.query_rope.get(), frame.batch.position(rows[index]), x, query, heads.size(),
                     dim);
        const RowRange seen = work_->visible(frame, rows[index]);
        for (std::int64_t h = 0; h < heads.size(); ++h, ++first) {
            scratch.begins[first] = static_cast<std::int32_t>(seen.begin);
            scratch.ends[first] = static_cast<std::int32_t>(seen.end);
        }
    }
    if (run_of(frame.kv.format) > 1)
        frame.kernels->attention.round_queries(queries, tile.rows * heads.size(), dim, frame.kv.format);
}

AttentionTile AttendInstruction::loaded(const Frame& frame, std::int64_t queries, int thread) const {
    const AttendScratch& scratch = work_->scratch(thread);
    return {scratch.queries,         scratch.begins, scratch.ends, queries,
            work_->shape().head_dim, spec_.scale,    spec_.cap,    scratch.keys.data(),
            scratch.values.data(),   frame.kv.format};
}

AttentionTile AttendInstruction::load_tile(const Frame& frame, const AttendUnit& unit, const AttendUnit* next,
                                           int thread) const {
    const RowRange heads{unit.head_begin, unit.head_end};
    load_queries(frame, *unit.tile, heads, 0, thread);
    const std::int64_t end = find_blocks(frame, unit, work_->scratch(thread));
    ask_ahead(frame, end, next, work_->scratch(thread));
    return loaded(frame, unit.tile->rows * heads.size(), thread);
}

void AttendInstruction::run_unit(const Frame& frame, const AttendUnit& unit, const AttendUnit* next,
                                 int thread) const {
    AttendScratch& scratch = work_->scratch(thread);
    const AttentionKernels& kernels = frame.kernels->attention;
    const AttentionTile tile = load_tile(frame, unit, next, thread);
    const std::int64_t dim = tile.head_dim, size = work_->state_floats(), queries = tile.num_queries;
    if (unit.states != nullptr) {
        for (std::int64_t chunk = unit.chunk_begin; chunk < unit.chunk_end; ++chunk)
            kernels.chunk(tile, chunk, scratch.scores, size,
                          unit.states + (chunk - unit.chunk_begin) * queries * size);
        return;
    }
    kernels.chunk(tile, unit.chunk_begin, scratch.scores, size, scratch.states);
    for (std::int64_t chunk = unit.chunk_begin + 1; chunk < unit.chunk_end; ++chunk) {
        kernels.chunk(tile, chunk, scratch.scores, size, scratch.later);
        for (std::int64_t q = 0; q < queries; ++q)
            kernels.merge(scratch.states + q * size, scratch.later + q * size, dim);
    }
    const std::int64_t heads = unit.head_end - unit.head_begin;
    for (std::int64_t q = 0; q < queries; ++q)
        kernels.finish(scratch.states + q * size,
                       frame.value(output_, thread) + (unit.tile->first + q / heads) * frame.width(output_) +
                           (unit.head_begin + q % heads) * dim,
                       dim);
}

// The queries of several tiles meet the chunks that all of them read; every tile gets its own states.
void AttendInstruction::run_shared_unit(const Frame& frame, const SharedUnit& unit, int thread) const {
    AttendScratch& scratch = work_->scratch(thread);
    const PrefixRun& run = *unit.run;
    const std::int64_t size = work_->state_floats(), heads = unit.head_end - unit.head_begin;
    std::int64_t queries = 0;
    for (std::int64_t place = run.first; place < run.first + run.count; ++place) {
        const AttendTile& tile = work_->reader(place);
        load_queries(frame, tile, {unit.head_begin, unit.head_end}, queries, thread);
        queries += tile.rows * heads;
    }
    const std::int64_t span = work_->reader(run.first).span;
    for (std::int64_t b = unit.chunk_begin * kChunkBlocks; b < unit.chunk_end * kChunkBlocks; ++b) {
        const std::int64_t place = frame.kv.offset(frame.batch.block(span, b), spec_.kv_layer, unit.kv_head);
        scratch.keys[b] = frame.kv.keys + place;
        scratch.values[b] = frame.kv.values + place;
    }
    ask_ahead(frame, unit.chunk_end * kChunkBlocks, nullptr, scratch);
    const AttentionTile together = loaded(frame, queries, thread);
    for (std::int64_t chunk = unit.chunk_begin; chunk < unit.chunk_end; ++chunk) {
        frame.kernels->attention.chunk(together, chunk, scratch.scores, size, scratch.states);
        const float* states = scratch.states;
        for (std::int64_t place = run.first; place < run.first + run.count; ++place) {
            const AttendTile& tile = work_->reader(place);
            const std::int64_t count = tile.rows * heads * size;
            std::memcpy(work_->partial_states(tile, unit.unit, chunk), states,
                        static_cast<std::size_t>(count) * sizeof(float));
            states += count;
        }
    }
}

// Each thread merges its own copy where values are replicated, else its share of the rows that are split.
void AttendInstruction::merge_rows(const Frame& frame, int thread) const {
    std::int64_t count = 0, at = 0;
    for (const AttendTile& tile : work_->tiles()) count += tile.split ? tile.rows : 0;
    const RowRange own =
        frame.replicated ? RowRange{0, count} : share_of(count, thread, frame.pool->num_threads());
    for (const AttendTile& tile : work_->tiles())
        for (std::int64_t r = 0; tile.split && r < tile.rows; ++r, ++at)
            if (at >= own.begin && at < own.end) merge_row(frame, tile, r, thread);
}

void AttendInstruction::merge_row(const Frame& frame, const AttendTile& tile, std::int64_t row,
                                  int thread) const {
    const AttentionKernels& kernels = frame.kernels->attention;
    const std::int64_t size = work_->state_floats(), dim = work_->shape().head_dim;
    float* state = work_->scratch(thread).states;
    float* outputs = frame.value(output_, thread) + (tile.first + row) * frame.width(output_);
    for (std::int64_t u = 0; u < work_->units_per_tile(); ++u) {
        const RowRange heads = work_->unit_heads(u);
        for (std::int64_t h = 0; h < heads.size(); ++h) {
            const float* partial =
                work_->partial_states(tile, u, tile.chunk_begin) + (row * heads.size() + h) * size;
            std::memcpy(state, partial, static_cast<std::size_t>(size) * sizeof(float));
            for (std::int64_t chunk = 1; chunk < tile.chunk_end - tile.chunk_begin; ++chunk)
                kernels.merge(state, partial + chunk * tile.rows * heads.size() * size, dim);
            kernels.finish(state, outputs + (heads.begin + h) * dim, dim);
        }
    }
}

// A second pass over the chunks, row by row: the final states first, then each position's probability.
void AttendInstruction::add_span_mass(const Frame& frame, const AttendTile& tile, int thread) const {
    AttendScratch& scratch = work_->scratch(thread);
    const AttentionKernels& kernels = frame.kernels->attention;
    const AttendShape& shape = work_->shape();
    const std::int64_t size = work_->state_floats(), step = work_->heads_per_unit();
    float* mass = mass_.data() + tile.span * frame.batch.most_blocks() * kKvBlock;
    std::vector<float> row_mass(static_cast<std::size_t>(tile.chunk_end * kChunkPositions));
    for (std::int64_t r = 0; r < tile.rows; ++r) {
        AttendTile one = tile;
        one.first += r;
        one.rows = 1;
        const std::int64_t row = frame.batch.rows(shape.row_set)[one.first];
        std::fill(row_mass.begin(), row_mass.end(), 0.0f);
        for (std::int64_t head = 0; head < shape.heads;) {
            const std::int64_t kv_head = head / work_->group();
            const std::int64_t end = std::min(head + step, (kv_head + 1) * work_->group());
            const AttentionTile queries = load_tile(
                frame, {&one, kv_head, head, end, one.chunk_begin, one.chunk_end, nullptr}, nullptr, thread);
            kernels.chunk(queries, one.chunk_begin, scratch.scores, size, scratch.states);
            for (std::int64_t chunk = one.chunk_begin + 1; chunk < one.chunk_end; ++chunk) {
                kernels.chunk(queries, chunk, scratch.scores, size, scratch.later);
                for (std::int64_t q = 0; q < queries.num_queries; ++q)
                    kernels.merge(scratch.states + q * size, scratch.later + q * size, shape.head_dim);
            }
            for (std::int64_t chunk = one.chunk_begin; chunk < one.chunk_end; ++chunk)
                kernels.add_mass(queries, chunk, scratch.scores, size, scratch.states,
                                 row_mass.data() + chunk * kChunkPositions);
            head = end;
        }
        const RowRange seen = work_->visible(frame, row);
        const std::int64_t context = frame.batch.context_of(tile.span);
        for (std::int64_t p = seen.begin; p < seen.end; ++p) {
            const bool moved = frame.batch.scattered(row) && p >= context;
            mass[moved ? frame.batch.path(row)[p - context] : p] += row_mass[static_cast<std::size_t>(p)];
        }
    }
}

}  // namespace pelton
