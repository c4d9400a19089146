// Tiles of attention over one chunk, for keys and values of any format. Included by the files that compile
// them; kernels/attention.h says what they compute.
#pragma once

#include "isa/simd.h"
#include "kernels/attention.h"
#include "kernels/attention_formats.h"
#include "kernels/attention_softmax.h"

namespace pelton::PELTON_ISA {

namespace {

// Positions of a block that some query sees; of what the others hold only that it is finite.
struct BlockPart {
    int64_t first, last;
};

// In runs of kRun, whose other positions get a weight of zero.
template <int kRun>
PELTON_INLINE BlockPart seen_part(BlockRange blocks, int64_t block) {
    const int64_t first = blocks.first_position - block * kKvBlock;
    const int64_t last = blocks.last_position - block * kKvBlock;
    return {(first > 0 ? first : 0) / kRun, ((last < kKvBlock ? last : kKvBlock) + kRun - 1) / kRun};
}

// A block of one head is about a page, beyond which the hardware's prefetching ends, so those that come
// next are asked for ahead, kTogether of them: a chunk's keys, its values, the keys of what comes after.
// Measured: the attention of a decode step at 1,900 positions takes 0.57 times as long as without. The many
// queries of a prompt are slower than memory: theirs takes 0.96 times as long without.
template <int kQueries>
constexpr bool kAsksAhead = kQueries <= 3;

// Into the second-level cache, which has more places for lines on their way than the first: on Zen 4 the
// attention of a decode step of 48 sequences takes 0.73 of the time (6.0 instead of 8.1 ms at 200 positions).
template <class Type>
PELTON_INLINE void prefetch(const Type* p, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(Type)))
        __builtin_prefetch(p + i, 0, 2);
}

// Scores of kQueries queries at the 32 positions of kBlocks blocks; `ahead` are the blocks that come
// next. A query's factors take up its row of `dim` floats, or the beginning of it.
template <class Kv, int kQueries, int kBlocks>
void score_tile(const float* queries, int64_t dim, const void* const* keys, const void* const* ahead,
                float scale, float* scores) {
    using Type = typename Kv::Type;
    const auto* factors = reinterpret_cast<const typename Kv::Factor*>(queries);
    if constexpr (Kv::kRun == 4)
        for (int b = 0; b < kBlocks; ++b) prefetch(ByteKv::scales(ahead[b], dim), kKvBlock);
    typename Kv::Sum acc[kBlocks][kQueries][2];
    PELTON_UNROLL for (int b = 0; b < kBlocks; ++b) PELTON_UNROLL for (int q = 0; q < kQueries; ++q)
        acc[b][q][0] = acc[b][q][1] = Kv::start(queries + q * dim, dim);
    for (int64_t d = 0; d < dim / Kv::kRun; ++d) {
        constexpr int64_t kStep = Kv::kRun * kKvBlock;
        PELTON_UNROLL for (int b = 0; b < kBlocks; ++b) {
            const Type* key = static_cast<const Type*>(keys[b]) + d * kStep;
            if constexpr (kAsksAhead<kQueries>)
                prefetch(static_cast<const Type*>(ahead[b]) + d * kStep, kStep);
            const auto low = Kv::load16(key), high = Kv::load16(key + kStep / 2);
            PELTON_UNROLL for (int q = 0; q < kQueries; ++q) {
                const auto factor = Kv::all(factors[q * dim + d]);
                acc[b][q][0] = Kv::add_product(acc[b][q][0], low, factor);
                acc[b][q][1] = Kv::add_product(acc[b][q][1], high, factor);
            }
        }
    }
    PELTON_UNROLL for (int b = 0; b < kBlocks; ++b) PELTON_UNROLL for (int q = 0; q < kQueries; ++q)
        PELTON_UNROLL for (int half = 0; half < 2; ++half)
            store(scores + q * kChunkPositions + b * kKvBlock + 16 * half,
                  Kv::score(acc[b][q][half], queries + q * dim, dim, keys[b], 16 * half, scale));
}

template <class Kv, int kQueries>
void score_blocks(const AttentionTile& tile, int64_t query, int64_t chunk, BlockRange blocks, float* scores) {
    constexpr int kStep = Kv::template kTogether<kQueries>;
    const float* queries = tile.queries + query * tile.head_dim;
    float* out = scores + query * kChunkPositions + blocks.begin * kKvBlock;
    const void* upcoming[2 * kChunkBlocks + kKeysAhead];  // keys, values, more keys
    const int64_t first = chunk * kChunkBlocks + blocks.begin, count = blocks.end - blocks.begin;
    if (count == 0) return;
    for (int64_t i = 0; i < count; ++i) {
        upcoming[i] = tile.keys[first + i];
        upcoming[count + i] = tile.values[first + i];
    }
    if constexpr (Kv::kRun == 4)  // scales are wanted before the values are
        for (int64_t i = 0; query == 0 && i < count; ++i)
            prefetch(ByteKv::scales(upcoming[count + i], tile.head_dim), kKvBlock);
    for (int64_t i = 0; i < kKeysAhead; ++i) upcoming[2 * count + i] = tile.keys[first + count + i];
    int64_t b = 0;
    for (; b + kStep <= count; b += kStep)
        score_tile<Kv, kQueries, kStep>(queries, tile.head_dim, upcoming + b, upcoming + b + kStep,
                                        tile.scale, out + b * kKvBlock);
    for (; b < count; ++b)
        score_tile<Kv, kQueries, 1>(queries, tile.head_dim, upcoming + b, upcoming + b + kStep, tile.scale,
                                    out + b * kKvBlock);
}

// Sums p * value of kQueries queries for kVectors * 16 neighbouring elements. A query's weights take up its
// row of scores, or the beginning of it.
template <class Kv, int kQueries, int kVectors>
void weigh_tile(const float* p, const void* const* values, const void* const* next_keys, BlockRange blocks,
                int64_t dim, int64_t element, int64_t state_size, float* outputs) {
    using Type = typename Kv::Type;
    typename Kv::WeighedSum acc[kQueries][kVectors];
    PELTON_UNROLL for (int q = 0; q < kQueries; ++q) PELTON_UNROLL for (int v = 0; v < kVectors; ++v)
        acc[q][v] = Kv::no_values();
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const Type* value = static_cast<const Type*>(values[b]) + element * Kv::kRun;
        const int64_t next = b + Kv::template kTogether<kQueries>;
        const Type* ahead =
            static_cast<const Type*>(next < blocks.end ? values[next] : next_keys[next - blocks.end]) +
            element * Kv::kRun;
        const BlockPart part = seen_part<Kv::kRun>(blocks, b);
        for (int64_t n = part.first; n < part.last; ++n) {
            if constexpr (kAsksAhead<kQueries>)
                prefetch(ahead + n * dim * Kv::kRun, 16 * kVectors * Kv::kRun);
            typename Kv::Lanes loaded[kVectors];
            PELTON_UNROLL for (int v = 0; v < kVectors; ++v) loaded[v] =
                Kv::load16(value + (n * dim + 16 * v) * Kv::kRun);
            PELTON_UNROLL for (int q = 0; q < kQueries; ++q) {
                const auto weight = Kv::weight(p + q * kChunkPositions, b, n);
                PELTON_UNROLL for (int v = 0; v < kVectors; ++v) acc[q][v] =
                    Kv::add_weighed(acc[q][v], loaded[v], weight);
            }
        }
    }
    PELTON_UNROLL for (int q = 0; q < kQueries; ++q) PELTON_UNROLL for (int v = 0; v < kVectors; ++v)
        store(outputs + q * state_size + element + 16 * v, Kv::weighed(acc[q][v], p + q * kChunkPositions));
}

// The last elements of a head whose size is not a multiple of 16.
template <class Kv>
void weigh_rest(const float* p, const void* const* values, BlockRange blocks, int64_t dim, int64_t element,
                float* output) {
    using Type = typename Kv::Type;
    typename Kv::WeighedSum acc = Kv::no_values();
    const int64_t count = dim - element;
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const BlockPart part = seen_part<Kv::kRun>(blocks, b);
        for (int64_t n = part.first; n < part.last; ++n) {
            Type padded[16 * Kv::kRun] = {};
            memcpy(padded, static_cast<const Type*>(values[b]) + (n * dim + element) * Kv::kRun,
                   static_cast<size_t>(count) * Kv::kRun * sizeof(Type));
            acc = Kv::add_weighed(acc, Kv::load16(padded), Kv::weight(p, b, n));
        }
    }
    store_first(output + element, static_cast<int>(count), Kv::weighed(acc, p));
}

template <class Kv, int kQueries>
void weigh_values(const AttentionTile& tile, int64_t query, int64_t chunk, BlockRange blocks,
                  const float* scores, int64_t size, float* states) {
    constexpr int kVectors = Kv::template kVectors<kQueries>;
    const int64_t dim = tile.head_dim;
    const void* const* values = tile.values + chunk * kChunkBlocks;
    const void* const* next = tile.keys + chunk * kChunkBlocks + blocks.end;
    const float* p = scores + query * kChunkPositions;
    float* outputs = states + query * size + kStateHeader;
    int64_t d = 0;
    for (; d + 16 * kVectors <= dim; d += 16 * kVectors)
        weigh_tile<Kv, kQueries, kVectors>(p, values, next, blocks, dim, d, size, outputs);
    for (; d + 16 <= dim; d += 16)
        weigh_tile<Kv, kQueries, 1>(p, values, next, blocks, dim, d, size, outputs);
    if constexpr (Kv::kAnySize) {
        for (int q = 0; d < dim && q < kQueries; ++q)
            weigh_rest<Kv>(p + q * kChunkPositions, values, blocks, dim, d, outputs + q * size);
    }
}

// Calls f.template operator()<n>(first) for groups of n queries that cover all of them.
template <class Function>
PELTON_INLINE void for_query_groups(int64_t count, Function f) {
    int64_t q = 0;
    for (; count - q >= kTileQueries; q += kTileQueries) f.template operator()<kTileQueries>(q);
    if constexpr (kTileQueries > 3) {
        if (count - q >= 3) {
            f.template operator()<3>(q);
            q += 3;
        }
    }
    if (count - q == 2) f.template operator()<2>(q);
    if (count - q == 1) f.template operator()<1>(q);
}

template <class Kv>
void score(const AttentionTile& tile, int64_t chunk, BlockRange blocks, float* scores) {
    for_query_groups(tile.num_queries, [&]<int kQueries>(int64_t q) {
        score_blocks<Kv, kQueries>(tile, q, chunk, blocks, scores);
    });
}

template <class Kv>
void weigh(const AttentionTile& tile, int64_t chunk, BlockRange blocks, const float* scores, int64_t size,
           float* states) {
    for_query_groups(tile.num_queries, [&]<int kQueries>(int64_t q) {
        weigh_values<Kv, kQueries>(tile, q, chunk, blocks, scores, size, states);
    });
}

// attend_chunk of attention.h for one format.
template <class Kv>
void chunk_of(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size, float* states) {
    const BlockRange blocks = seen_blocks(tile, chunk);
    score<Kv>(tile, chunk, blocks, scores);
    // All maximums first: each ends in a chain of dependent instructions, which the next query's can overlap.
    for (int64_t q = 0; q < tile.num_queries; ++q)
        states[q * state_size] = mask_scores(tile, q, chunk, blocks, scores + q * kChunkPositions);
    make_weights<Kv>(tile, chunk, blocks, scores, state_size, states);
    weigh<Kv>(tile, chunk, blocks, scores, state_size, states);
}

// add_mass of attention.h for one format.
template <class Kv>
void mass_of(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size, const float* states,
             float* mass) {
    const BlockRange blocks = seen_blocks(tile, chunk);
    score<Kv>(tile, chunk, blocks, scores);
    for (int64_t q = 0; q < tile.num_queries; ++q) {
        float* row = scores + q * kChunkPositions;
        const float* state = states + q * state_size;
        mask_scores(tile, q, chunk, blocks, row);
        exponentials(blocks, state[0], row);
        for (int64_t i = blocks.begin * kKvBlock; i < blocks.end * kKvBlock; ++i)
            mass[i] += row[i] / state[1];
    }
}

}  // namespace

}  // namespace pelton::PELTON_ISA
