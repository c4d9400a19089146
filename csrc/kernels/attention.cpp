#include "kernels/attention.h"

#include "isa/simd.h"
#include "kernels/elementwise_math.h"

namespace pelton::PELTON_ISA {

namespace {

#if defined(PELTON_ISA_avx512)
constexpr int kTileQueries = 6, kTileVectors = 4;  // 24 sums, 4 loads and a broadcast of 32 registers
#else
constexpr int kTileQueries = 3, kTileVectors = 2;  // vectors of 16 are two registers of 16
#endif

struct HalfKv {
    using Type = uint16_t;
    static PELTON_INLINE f32x16 load16(const Type* p) { return load_f16(p); }
};
struct FloatKv {
    using Type = float;
    static PELTON_INLINE f32x16 load16(const Type* p) { return load(p); }
};

// Blocks of a chunk that some query of the tile sees, as places in the chunk, and the positions among them.
struct BlockRange {
    int64_t begin, end;
    int64_t first_position, last_position;  // [first, last)
};

BlockRange seen_blocks(const AttentionTile& tile, int64_t chunk) {
    const int64_t first = chunk * kChunkPositions, last = first + kChunkPositions;
    int64_t begin = last, end = first;
    for (int64_t q = 0; q < tile.num_queries; ++q) {
        if (tile.begins[q] >= last || tile.ends[q] <= first) continue;
        begin = tile.begins[q] < begin ? tile.begins[q] : begin;
        end = tile.ends[q] > end ? tile.ends[q] : end;
    }
    begin = begin < first ? first : begin;
    end = end > last ? last : end;
    if (begin >= end) return {0, 0, 0, 0};
    return {(begin - first) / kKvBlock, (end - first + kKvBlock - 1) / kKvBlock, begin - first, end - first};
}

// Positions of a block that some query sees; nothing is known of what the others hold.
struct BlockPart {
    int64_t first, last;
};

PELTON_INLINE BlockPart seen_part(BlockRange blocks, int64_t block) {
    const int64_t first = blocks.first_position - block * kKvBlock;
    const int64_t last = blocks.last_position - block * kKvBlock;
    return {first > 0 ? first : 0, last < kKvBlock ? last : kKvBlock};
}

// Blocks of keys whose scores are summed at once: few queries take several, so that enough independent sums
// hide the latency of fma.
template <int kQueries>
constexpr int kTogether = kQueries > 3                         ? 1
                          : kTileQueries < 6 && kQueries == 3  ? 1
                          : kTileQueries >= 6 && kQueries == 1 ? kKeysAhead
                                                               : 2;

// A block is a page or two of its own, where the hardware's prefetching ends, so those that come next are
// asked for ahead, kTogether of them: a chunk's keys, its values, the keys of what comes after. Measured: the
// attention of a decode step at 1,900 positions takes 0.57 times as long as without.
template <class Type>
PELTON_INLINE void prefetch(const Type* p, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(Type))) __builtin_prefetch(p + i);
}

// Raw products of kQueries queries with the 32 positions of kBlocks blocks; `ahead` are the blocks that come
// next.
template <class Kv, int kQueries, int kBlocks>
void score_tile(const float* queries, int64_t dim, const void* const* keys, const void* const* ahead,
                float* scores) {
    f32x16 acc[kBlocks][kQueries][2];
    PELTON_UNROLL for (int b = 0; b < kBlocks; ++b) PELTON_UNROLL for (int q = 0; q < kQueries; ++q)
        acc[b][q][0] = acc[b][q][1] = set1(0.0f);
    for (int64_t d = 0; d < dim; ++d) {
        PELTON_UNROLL for (int b = 0; b < kBlocks; ++b) {
            const auto* key = static_cast<const typename Kv::Type*>(keys[b]) + d * kKvBlock;
            prefetch(static_cast<const typename Kv::Type*>(ahead[b]) + d * kKvBlock, kKvBlock);
            const f32x16 low = Kv::load16(key), high = Kv::load16(key + 16);
            PELTON_UNROLL for (int q = 0; q < kQueries; ++q) {
                const f32x16 value = set1(queries[q * dim + d]);
                acc[b][q][0] = fma(low, value, acc[b][q][0]);
                acc[b][q][1] = fma(high, value, acc[b][q][1]);
            }
        }
    }
    PELTON_UNROLL for (int b = 0; b < kBlocks; ++b) PELTON_UNROLL for (int q = 0; q < kQueries; ++q) {
        store(scores + q * kChunkPositions + b * kKvBlock, acc[b][q][0]);
        store(scores + q * kChunkPositions + b * kKvBlock + 16, acc[b][q][1]);
    }
}

template <class Kv, int kQueries>
void score_blocks(const AttentionTile& tile, int64_t query, int64_t chunk, BlockRange blocks, float* scores) {
    constexpr int kStep = kTogether<kQueries>;
    const float* queries = tile.queries + query * tile.head_dim;
    float* out = scores + query * kChunkPositions + blocks.begin * kKvBlock;
    const void* upcoming[2 * kChunkBlocks + kKeysAhead];  // keys, values, more keys
    const int64_t first = chunk * kChunkBlocks + blocks.begin, count = blocks.end - blocks.begin;
    if (count == 0) return;
    for (int64_t i = 0; i < count; ++i) {
        upcoming[i] = tile.keys[first + i];
        upcoming[count + i] = tile.values[first + i];
    }
    for (int64_t i = 0; i < kKeysAhead; ++i) upcoming[2 * count + i] = tile.keys[first + count + i];
    int64_t b = 0;
    for (; b + kStep <= count; b += kStep)
        score_tile<Kv, kQueries, kStep>(queries, tile.head_dim, upcoming + b, upcoming + b + kStep,
                                        out + b * kKvBlock);
    for (; b < count; ++b)
        score_tile<Kv, kQueries, 1>(queries, tile.head_dim, upcoming + b, upcoming + b + kStep,
                                    out + b * kKvBlock);
}

// Sums p * value of kQueries queries for kVectors * 16 neighbouring elements.
template <class Kv, int kQueries, int kVectors>
void weigh_tile(const float* p, const void* const* values, const void* const* next_keys, BlockRange blocks,
                int64_t dim, int64_t element, int64_t state_size, float* outputs) {
    f32x16 acc[kQueries][kVectors];
    PELTON_UNROLL for (int q = 0; q < kQueries; ++q) PELTON_UNROLL for (int v = 0; v < kVectors; ++v)
        acc[q][v] = set1(0.0f);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const auto* value = static_cast<const typename Kv::Type*>(values[b]) + element;
        const int64_t next = b + kTogether<kQueries>;
        const auto* ahead = static_cast<const typename Kv::Type*>(
                                next < blocks.end ? values[next] : next_keys[next - blocks.end]) +
                            element;
        const int64_t start = b * kKvBlock;
        const BlockPart part = seen_part(blocks, b);
        for (int64_t n = part.first; n < part.last; ++n) {
            prefetch(ahead + n * dim, 16 * kVectors);
            f32x16 loaded[kVectors];
            PELTON_UNROLL for (int v = 0; v < kVectors; ++v) loaded[v] = Kv::load16(value + n * dim + 16 * v);
            PELTON_UNROLL for (int q = 0; q < kQueries; ++q) {
                const f32x16 weight = set1(p[q * kChunkPositions + start + n]);
                PELTON_UNROLL for (int v = 0; v < kVectors; ++v) acc[q][v] =
                    fma(weight, loaded[v], acc[q][v]);
            }
        }
    }
    // Adding 0 turns -0 into 0, so that it makes no difference whether unseen positions were added.
    PELTON_UNROLL for (int q = 0; q < kQueries; ++q) PELTON_UNROLL for (int v = 0; v < kVectors; ++v)
        store(outputs + q * state_size + element + 16 * v, acc[q][v] + set1(0.0f));
}

// The last elements of a head whose size is not a multiple of 16.
template <class Kv>
void weigh_rest(const float* p, const void* const* values, BlockRange blocks, int64_t dim, int64_t element,
                float* output) {
    f32x16 acc = set1(0.0f);
    const int count = static_cast<int>(dim - element);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const BlockPart part = seen_part(blocks, b);
        for (int64_t n = part.first; n < part.last; ++n) {
            typename Kv::Type padded[16] = {};
            memcpy(padded, static_cast<const typename Kv::Type*>(values[b]) + n * dim + element,
                   static_cast<size_t>(count) * sizeof padded[0]);
            acc = fma(set1(p[b * kKvBlock + n]), Kv::load16(padded), acc);
        }
    }
    store_first(output + element, count, acc + set1(0.0f));
}

template <class Kv, int kQueries>
void weigh_values(const AttentionTile& tile, int64_t query, int64_t chunk, BlockRange blocks,
                  const float* scores, int64_t size, float* states) {
    const int64_t dim = tile.head_dim;
    const void* const* values = tile.values + chunk * kChunkBlocks;
    const void* const* next = tile.keys + chunk * kChunkBlocks + blocks.end;
    const float* p = scores + query * kChunkPositions;
    float* outputs = states + query * size + kStateHeader;
    int64_t d = 0;
    for (; d + 16 * kTileVectors <= dim; d += 16 * kTileVectors)
        weigh_tile<Kv, kQueries, kTileVectors>(p, values, next, blocks, dim, d, size, outputs);
    for (; d + 16 <= dim; d += 16)
        weigh_tile<Kv, kQueries, 1>(p, values, next, blocks, dim, d, size, outputs);
    if (d == dim) return;
    for (int q = 0; q < kQueries; ++q)
        weigh_rest<Kv>(p + q * kChunkPositions, values, blocks, dim, d, outputs + q * size);
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

PELTON_INLINE mask16 visible(const AttentionTile& tile, int64_t query, f32x16 lanes, int64_t position) {
    const float offset = static_cast<float>(position);  // exact up to 2^24 positions
    const mask16 before_end = less(lanes, set1(static_cast<float>(tile.ends[query]) - offset));
    const f32x16 inside = select(before_end, lanes, set1(-1e30f));
    return less(set1(static_cast<float>(tile.begins[query]) - offset - 0.5f), inside);
}

PELTON_INLINE f32x16 lane_numbers() {
    static const float kNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load(kNumbers);
}

// Scales, caps and masks the scores of a query; returns their maximum.
float mask_scores(const AttentionTile& tile, int64_t query, int64_t chunk, BlockRange blocks, float* scores) {
    const f32x16 lanes = lane_numbers(), nothing = set1(-__builtin_inff());
    const int64_t begin = tile.begins[query] - chunk * kChunkPositions;
    const int64_t end = tile.ends[query] - chunk * kChunkPositions;
    f32x16 largest = nothing;
    for (int64_t i = blocks.begin * kKvBlock; i < blocks.end * kKvBlock; i += 16) {
        f32x16 s = load(scores + i) * set1(tile.scale);
        if (tile.cap != 0.0f) s = set1(tile.cap) * tanh(s / set1(tile.cap));
        if (i < begin || i + 16 > end)
            s = select(visible(tile, query, lanes, chunk * kChunkPositions + i), s, nothing);
        largest = max(largest, s);
        store(scores + i, s);
    }
    return reduce_max(largest);
}

// Turns masked scores into p = exp(score - m) and returns their sum.
float exponentials(BlockRange blocks, float largest, float* scores) {
    f32x16 sum = set1(0.0f);
    for (int64_t i = blocks.begin * kKvBlock; i < blocks.end * kKvBlock; i += 16) {
        const f32x16 p = exp(load(scores + i) - set1(largest));
        sum += p;
        store(scores + i, p);
    }
    return reduce_add(sum);
}

PELTON_INLINE float exp_of(float x) {
    float lanes[16];
    store(lanes, exp(set1(x)));
    return lanes[0];
}

void score_any(const AttentionTile& tile, int64_t chunk, BlockRange blocks, float* scores) {
    tile.half ? score<HalfKv>(tile, chunk, blocks, scores) : score<FloatKv>(tile, chunk, blocks, scores);
}

template <class Kv>
void weigh(const AttentionTile& tile, int64_t chunk, BlockRange blocks, const float* scores, int64_t size,
           float* states) {
    for_query_groups(tile.num_queries, [&]<int kQueries>(int64_t q) {
        weigh_values<Kv, kQueries>(tile, q, chunk, blocks, scores, size, states);
    });
}

template <class Type>
PELTON_INLINE void scatter_key(const Type* key, int64_t count, Type* place) {
    for (int64_t i = 0; i < count; ++i) place[i * kKvBlock] = key[i];
}

// A NaN becomes the lower limit: max and min return their second operand then.
PELTON_INLINE f32x16 bounded(f32x16 x, float limit) { return min(max(x, set1(-limit)), set1(limit)); }

}  // namespace

void attend_chunk(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
                  float* states) {
    const BlockRange blocks = seen_blocks(tile, chunk);
    score_any(tile, chunk, blocks, scores);
    // All maximums first: each ends in a chain of dependent instructions, which the next query's can overlap.
    for (int64_t q = 0; q < tile.num_queries; ++q)
        states[q * state_size] = mask_scores(tile, q, chunk, blocks, scores + q * kChunkPositions);
    for (int64_t q = 0; q < tile.num_queries; ++q) {
        float* row = scores + q * kChunkPositions;
        const float largest = states[q * state_size];
        const bool unseen = !(largest > -__builtin_inff());
        if (unseen && largest == largest)  // keeps -inf - -inf, a NaN, out of what others see as zeros
            memset(row + blocks.begin * kKvBlock, 0,
                   static_cast<size_t>((blocks.end - blocks.begin) * kKvBlock) * 4);
        states[q * state_size + 1] = unseen ? 0.0f : exponentials(blocks, largest, row);
    }
    tile.half ? weigh<HalfKv>(tile, chunk, blocks, scores, state_size, states)
              : weigh<FloatKv>(tile, chunk, blocks, scores, state_size, states);
}

void merge_states(float* state, const float* later, int64_t head_dim) {
    if (later[1] == 0.0f) return;
    const int64_t size = kStateHeader + head_dim;
    if (state[1] == 0.0f) {
        memcpy(state, later, static_cast<size_t>(size) * sizeof(float));
        return;
    }
    const float largest = state[0] > later[0] ? state[0] : later[0];
    const float mine = exp_of(state[0] - largest), theirs = exp_of(later[0] - largest);
    state[0] = largest;
    state[1] = state[1] * mine + later[1] * theirs;
    for (int64_t i = kStateHeader; i < size; i += 16) {
        const int left = size - i < 16 ? static_cast<int>(size - i) : 16;
        const f32x16 sum = load_first(state + i, left) * set1(mine);
        store_first(state + i, left, fma(load_first(later + i, left), set1(theirs), sum));
    }
}

void finish_state(const float* state, float* output, int64_t head_dim) {
    const f32x16 inverse = set1(1.0f / state[1]);
    for (int64_t i = 0; i < head_dim; i += 16) {
        const int left = head_dim - i < 16 ? static_cast<int>(head_dim - i) : 16;
        store_first(output + i, left, load_first(state + kStateHeader + i, left) * inverse);
    }
}

void add_mass(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
              const float* states, float* mass) {
    const BlockRange blocks = seen_blocks(tile, chunk);
    score_any(tile, chunk, blocks, scores);
    for (int64_t q = 0; q < tile.num_queries; ++q) {
        float* row = scores + q * kChunkPositions;
        const float* state = states + q * state_size;
        mask_scores(tile, q, chunk, blocks, row);
        exponentials(blocks, state[0], row);
        for (int64_t i = blocks.begin * kKvBlock; i < blocks.end * kKvBlock; ++i)
            mass[i] += row[i] / state[1];
    }
}

void store_kv(const float* key, const float* value, int64_t head_dim, bool half, void* key_place,
              void* value_place) {
    const float limit = half ? 65504.0f : 3.4028234e38f;
    for (int64_t i = 0; i < head_dim; i += 16) {
        const int count = head_dim - i < 16 ? static_cast<int>(head_dim - i) : 16;
        const f32x16 k = bounded(load_first(key + i, count), limit),
                     v = bounded(load_first(value + i, count), limit);
        if (half) {
            uint16_t lanes[16];
            store_f16(lanes, k);
            scatter_key(lanes, count, static_cast<uint16_t*>(key_place) + i * kKvBlock);
            store_f16(lanes, v);
            memcpy(static_cast<uint16_t*>(value_place) + i, lanes, static_cast<size_t>(count) * 2);
        } else {
            float lanes[16];
            store(lanes, k);
            scatter_key(lanes, count, static_cast<float*>(key_place) + i * kKvBlock);
            store_first(static_cast<float*>(value_place) + i, count, v);
        }
    }
}

}  // namespace pelton::PELTON_ISA
