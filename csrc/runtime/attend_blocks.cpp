// Where an attention finds the KV blocks it reads: in the arena, or put together for drafts.
#include <algorithm>
#include <cstring>

#include "runtime/attend_instruction.h"

namespace pelton {

namespace {

// Copies one logical position's key and value between blocks of one head.
void copy_position(const KvArrays& kv, const std::uint8_t* keys, const std::uint8_t* values,
                   std::int64_t from, std::uint8_t* key_block, std::uint8_t* value_block, std::int64_t to) {
    const std::int64_t size = number_bytes(kv.format), dim = kv.head_dim;
    const auto copy = [&](std::uint8_t* target, std::int64_t to_place, const std::uint8_t* source,
                          std::int64_t place) {
        std::memcpy(target + to_place * size, source + place * size, static_cast<std::size_t>(size));
    };
    for (std::int64_t d = 0; d < dim; ++d) {
        copy(key_block, key_place(kv.format, to, d), keys, key_place(kv.format, from, d));
        copy(value_block, value_place(kv.format, to, d, dim), values, value_place(kv.format, from, d, dim));
    }
    if (kv.format != KvFormat::kInt8) return;
    const std::int64_t scales = byte_scales_place(dim);
    std::memcpy(key_block + scales + 4 * to, keys + scales + 4 * from, 4);
    std::memcpy(value_block + scales + 4 * to, values + scales + 4 * from, 4);
}

}  // namespace

// Addresses of the blocks of the unit's chunks, as far as any row sees; returns the end of the blocks.
std::int64_t AttendInstruction::find_blocks(const Frame& frame, const AttendUnit& unit,
                                            AttendScratch& scratch) const {
    const AttendTile& tile = *unit.tile;
    const std::int32_t* rows = frame.batch.rows(work_->shape().row_set);
    std::int64_t end = 0;
    for (std::int64_t r = 0; r < tile.rows; ++r)
        end = std::max(end, work_->visible(frame, rows[tile.first + r]).end);
    const std::int64_t last = std::min(unit.chunk_end * kChunkBlocks, (end + kKvBlock - 1) / kKvBlock);
    for (std::int64_t b = unit.chunk_begin * kChunkBlocks; b < last; ++b) {
        const std::int64_t place =
            frame.kv.offset(frame.batch.block(tile.span, b), spec_.kv_layer, unit.kv_head);
        scratch.keys[b] = frame.kv.keys + place;
        scratch.values[b] = frame.kv.values + place;
    }
    if (frame.batch.scattered(rows[tile.first])) gather_blocks(frame, unit, scratch);
    return last;
}

// What follows a unit's keys in the list: the first keys of the next unit, or again its own last ones.
void AttendInstruction::ask_ahead(const Frame& frame, std::int64_t end, const AttendUnit* next,
                                  AttendScratch& scratch) const {
    const auto at = [&](std::int64_t i) -> const void*& { return scratch.keys[static_cast<std::size_t>(i)]; };
    for (std::int64_t i = 0; i < kKeysAhead; ++i) {
        at(end + i) = at(end - 1);
        const std::int64_t block = next == nullptr ? 0 : next->chunk_begin * kChunkBlocks + i;
        if (next == nullptr || block >= next->tile->block_end) continue;
        at(end + i) = frame.kv.keys + frame.kv.offset(frame.batch.block(next->tile->span, block),
                                                      spec_.kv_layer, next->kv_head);
    }
}

// Blocks that hold draft positions are put together from the slots of the row's ancestors, in logical order.
void AttendInstruction::gather_blocks(const Frame& frame, const AttendUnit& unit,
                                      AttendScratch& scratch) const {
    const KvArrays& kv = frame.kv;
    const std::int64_t row = frame.batch.rows(work_->shape().row_set)[unit.tile->first],
                       span = unit.tile->span;
    const std::int64_t context = frame.batch.context_of(span), end = frame.batch.position(row) + 1;
    const std::int64_t first = std::max(context / kKvBlock, unit.chunk_begin * kChunkBlocks);
    const std::int64_t last = std::min((end + kKvBlock - 1) / kKvBlock, unit.chunk_end * kChunkBlocks);
    const std::int64_t bytes = head_block_bytes(kv.format, kv.head_dim);
    if (last > first) scratch.gathered.assign(static_cast<std::size_t>((last - first) * 2 * bytes), 0);
    const std::int32_t* path = frame.batch.path(row);
    for (std::int64_t b = first; b < last; ++b) {
        std::uint8_t* keys = scratch.gathered.data() + (b - first) * 2 * bytes;
        std::uint8_t* values = keys + bytes;
        for (std::int64_t position = b * kKvBlock; position < std::min((b + 1) * kKvBlock, end); ++position) {
            const std::int64_t slot = position < context ? position : path[position - context];
            const std::int64_t place =
                kv.offset(frame.batch.block(span, slot / kKvBlock), spec_.kv_layer, unit.kv_head);
            copy_position(kv, kv.keys + place, kv.values + place, slot % kKvBlock, keys, values,
                          position % kKvBlock);
        }
        scratch.keys[b] = keys;
        scratch.values[b] = values;
    }
}

}  // namespace pelton
