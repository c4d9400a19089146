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

// A state is m, l, then from kStateHeader on the unfinished output [head_dim].
constexpr int kStateHeader = 16;

// Addresses in a tile's list of keys after those it reads: what will be read after it, to be asked for ahead.
constexpr int kKeysAhead = 4;

// Queries that share a key-value head and its blocks.
struct AttentionTile {
    const float* queries;   // [num_queries, head_dim]
    const int32_t* begins;  // [num_queries] visible logical positions are begins..ends
    const int32_t* ends;
    int64_t num_queries, head_dim;
    float scale, cap;           // cap 0: none
    const void* const* keys;    // of logical block i: [head_dim, 32]; then kKeysAhead more
    const void* const* values;  // of logical block i: [32, head_dim]
    bool half;                  // keys and values are float16, else float32
};

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
    // One head of one row into its place; `key` is lane 0's place plus the lane. Values beyond the format's
    // range become its largest of that sign, NaN the lowest, so that a stored number is always finite.
    void (*store_kv)(const float* key, const float* value, int64_t head_dim, bool half, void* key_place,
                     void* value_place);
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
void attend_chunk(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size, float* states);
void merge_states(float* state, const float* later, int64_t head_dim);
void finish_state(const float* state, float* output, int64_t head_dim);
void add_mass(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
              const float* states, float* mass);
void store_kv(const float* key, const float* value, int64_t head_dim, bool half, void* key_place,
              void* value_place);
}  // namespace PELTON_ISA
#endif

}  // namespace pelton
