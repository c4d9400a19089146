// Attention over chunks of 256 logical positions (8 KV blocks), merged in chunk order by log-sum-exp.
//
// The result of a query is defined by its visible positions alone: per chunk the scores (sum over the head's
// elements in order), their maximum m, p = exp(score - m), l = sum of p, o = sum of p * value (positions in
// order); then the chunks' (m, l, o) are merged from the first to the last, and o / l is the answer.
// Positions a query does not see contribute exact zeros, so tiles of queries and splits over threads change
// no bit.
//
// The idea is that of FlashAttention and of "Self-attention Does Not Need O(n^2) Memory": a running maximum
// and sum, never a matrix of scores; FuseMax shows that one pass over the keys suffices.
#pragma once

#include <stdint.h>

namespace pelton {

constexpr int kKvBlock = 32;
constexpr int kChunkPositions = 256;
constexpr int kChunkBlocks = kChunkPositions / kKvBlock;
constexpr int kMaxTileQueries = 24;

// bfloat16 comes in pairs, which its dot product multiplies at once: of neighbouring elements of a key, of
// neighbouring positions of the values. Queries and p are rounded to bfloat16 too then.
enum class KvFormat : uint8_t { kFloat32, kFloat16, kBFloat16 };

// A state is m, l, then from kStateHeader on the unfinished output [head_dim].
constexpr int kStateHeader = 16;

// Addresses in a tile's list of keys after those it reads: what will be read after it, to be asked for ahead.
constexpr int kKeysAhead = 4;

// Queries that share a key-value head and its blocks.
struct AttentionTile {
    const float* queries;   // [num_queries, head_dim], rounded by round_query where keys are bfloat16
    const int32_t* begins;  // [num_queries] visible logical positions are begins..ends
    const int32_t* ends;
    int64_t num_queries, head_dim;
    float scale, cap;           // cap 0: none
    const void* const* keys;    // of logical block i: [head_dim, 32]; then kKeysAhead more
    const void* const* values;  // of logical block i: [32, head_dim]
    KvFormat format;
};

// Where a position's element lies in a block of one head's keys [head_dim, 32], or pairs [head_dim / 2, 32,
// 2].
[[gnu::always_inline]] inline int64_t key_place(KvFormat format, int64_t position, int64_t element) {
    if (format != KvFormat::kBFloat16) return element * kKvBlock + position;
    return (element / 2 * kKvBlock + position) * 2 + element % 2;
}

// The same of values [32, head_dim], or pairs [16, head_dim, 2].
[[gnu::always_inline]] inline int64_t value_place(KvFormat format, int64_t position, int64_t element,
                                                  int64_t head_dim) {
    if (format != KvFormat::kBFloat16) return position * head_dim + element;
    return (position / 2 * head_dim + element) * 2 + position % 2;
}

struct AttentionKernels {
    // The state of every query for one chunk, [num_queries, state_size]; m = -infinity and l = 0 where a
    // query sees none of it. `scores` is scratch, [num_queries, 256].
    void (*chunk)(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size, float* states);
    void (*merge)(float* state, const float* later, int64_t head_dim);
    void (*finish)(const float* state, float* output, int64_t head_dim);
    // mass[j] += the probability of logical position 256 * chunk + j for each query, whose final states are
    // given.
    void (*add_mass)(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
                     const float* states, float* mass);
    // Makes a query's elements factors of bfloat16 keys: two of them in place of one float.
    void (*round_query)(float* query, int64_t head_dim);
    // One head of one row into its place of a block. Values beyond the format's range become its largest of
    // that sign, NaN the lowest, so that a stored number is always finite.
    void (*store_kv)(const float* key, const float* value, int64_t head_dim, KvFormat format,
                     int64_t position, void* keys, void* values);
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
void attend_chunk(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size, float* states);
void merge_states(float* state, const float* later, int64_t head_dim);
void finish_state(const float* state, float* output, int64_t head_dim);
void add_mass(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
              const float* states, float* mass);
void round_query(float* query, int64_t head_dim);
void store_kv(const float* key, const float* value, int64_t head_dim, KvFormat format, int64_t position,
              void* keys, void* values);
}  // namespace PELTON_ISA
#endif

}  // namespace pelton
