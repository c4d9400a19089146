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

// bfloat16 comes in pairs and int8 in fours, which dot products multiply at once: of neighbouring elements of
// a key, of neighbouring positions of the values. Queries are rounded to the same, p to bfloat16 or to 16
// bits. Of int8 there is a scale for each position, behind the block's bytes: see kernels/byte_heads.h.
enum class KvFormat : uint8_t { kFloat32, kFloat16, kBFloat16, kInt8 };

// Heads of int8 have a multiple of 16 elements, and not more than these.
constexpr int64_t kMostByteElements = 1024;

// A state is m, l, then from kStateHeader on the unfinished output [head_dim].
constexpr int kStateHeader = 16;

// Addresses in a tile's list of keys after those it reads: what will be read after it, to be asked for ahead.
constexpr int kKeysAhead = 4;

// Queries that share a key-value head and its blocks.
struct AttentionTile {
    const float* queries;   // [num_queries, head_dim], rounded by round_queries where keys are
    const int32_t* begins;  // [num_queries] visible logical positions are begins..ends
    const int32_t* ends;
    int64_t num_queries, head_dim;
    float scale, cap;           // cap 0: none
    const void* const* keys;    // of logical block i: [head_dim, 32], or runs; then kKeysAhead more
    const void* const* values;  // of logical block i: [32, head_dim]
    KvFormat format;
};

// Numbers that lie together.
[[gnu::always_inline]] inline int64_t run_of(KvFormat format) {
    return format == KvFormat::kInt8 ? 4 : format == KvFormat::kBFloat16 ? 2 : 1;
}

[[gnu::always_inline]] inline int64_t number_bytes(KvFormat format) {
    return format == KvFormat::kInt8 ? 1 : format == KvFormat::kFloat32 ? 4 : 2;
}

// Where a position's element lies in a block of one head's keys [head_dim / run, 32, run].
[[gnu::always_inline]] inline int64_t key_place(KvFormat format, int64_t position, int64_t element) {
    const int64_t run = run_of(format);
    return (element / run * kKvBlock + position) * run + element % run;
}

// The same of values [32 / run, head_dim, run].
[[gnu::always_inline]] inline int64_t value_place(KvFormat format, int64_t position, int64_t element,
                                                  int64_t head_dim) {
    const int64_t run = run_of(format);
    return (position / run * head_dim + element) * run + position % run;
}

// Bytes to the float32 scales of 32 positions in a block of int8.
[[gnu::always_inline]] inline int64_t byte_scales_place(int64_t head_dim) { return head_dim * kKvBlock; }

// Bytes of one head's keys, or values, of a block.
[[gnu::always_inline]] inline int64_t head_block_bytes(KvFormat format, int64_t head_dim) {
    const int64_t scales = format == KvFormat::kInt8 ? kKvBlock * 4 : 0;
    return head_dim * kKvBlock * number_bytes(format) + scales;
}

// What follows a query of int8, in its row of floats, behind its head_dim bytes.
struct ByteQueryTail {
    float scale;
    int32_t start;  // -128 times the sum of the bytes: keys are stored 128 too large
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
    // Makes the elements of queries [count, head_dim] factors of keys of bfloat16 or int8, in place of
    // floats.
    void (*round_queries)(float* queries, int64_t count, int64_t head_dim, KvFormat format);
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
void round_queries(float* queries, int64_t count, int64_t head_dim, KvFormat format);
void store_kv(const float* key, const float* value, int64_t head_dim, KvFormat format, int64_t position,
              void* keys, void* values);
}  // namespace PELTON_ISA
#endif

}  // namespace pelton
