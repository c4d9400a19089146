// From scores to weights: what a tile of attention does between its keys and its values, and which blocks of
// a chunk it does that for. Included by attention_chunk.h only.
#pragma once

#include "isa/simd.h"
#include "kernels/attention.h"
#include "kernels/attention_formats.h"
#include "kernels/byte_heads.h"
#include "kernels/elementwise_math.h"

namespace pelton::PELTON_ISA {

namespace {

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

// Caps and masks the scores of a query; returns their maximum.
float mask_scores(const AttentionTile& tile, int64_t query, int64_t chunk, BlockRange blocks, float* scores) {
    const f32x16 lanes = lane_numbers(), nothing = set1(-__builtin_inff());
    const int64_t begin = tile.begins[query] - chunk * kChunkPositions;
    const int64_t end = tile.ends[query] - chunk * kChunkPositions;
    f32x16 largest = nothing;
    for (int64_t i = blocks.begin * kKvBlock; i < blocks.end * kKvBlock; i += 16) {
        f32x16 s = load(scores + i);
        const bool whole = i >= begin && i + 16 <= end;
        if (tile.cap != 0.0f) s = set1(tile.cap) * tanh(s / set1(tile.cap));
        if (!whole) s = select(visible(tile, query, lanes, chunk * kChunkPositions + i), s, nothing);
        if (!whole || tile.cap != 0.0f) store(scores + i, s);
        largest = max(largest, s);
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

// The same with p rounded to bfloat16 for the values; the sum is of p as it was.
float coarse_exponentials(BlockRange blocks, float largest, float* scores) {
    const f32x16 log2_e = set1(1.44269504f), shift = set1(-largest * 1.44269504f);
    f32x16 sums[2] = {set1(0.0f), set1(0.0f)};
    for (int64_t i = blocks.begin * kKvBlock; i < blocks.end * kKvBlock; i += 32) {
        const f32x16 low = coarse_exp2(fma(load(scores + i), log2_e, shift)),
                     high = coarse_exp2(fma(load(scores + i + 16), log2_e, shift));
        sums[0] += low;
        sums[1] += high;
        store_bf16(reinterpret_cast<uint16_t*>(scores) + i, low, high);  // behind what is still to be read
    }
    return reduce_add(sums[0] + sums[1]);
}

// coarse_exponentials with p times the scales of the values in its place, and what makes the largest of them
// kMostWeight.
float scaled_exponentials(const AttentionTile& tile, int64_t chunk, BlockRange blocks, float largest,
                          float* scores, ByteScale& by) {
    const f32x16 log2_e = set1(1.44269504f), shift = set1(-largest * 1.44269504f);
    const void* const* values = tile.values + chunk * kChunkBlocks;
    f32x16 sums[2] = {set1(0.0f), set1(0.0f)}, most = set1(0.0f);
    for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const float* scales = ByteKv::scales(values[b], tile.head_dim);
        PELTON_UNROLL for (int half = 0; half < 2; ++half) {
            float* place = scores + b * kKvBlock + 16 * half;
            const f32x16 p = coarse_exp2(fma(load(place), log2_e, shift)), w = p * load(scales + 16 * half);
            sums[half] += p;
            most = max(most, w);
            store(place, w);
        }
    }
    by = byte_scale(reduce_max(most), ByteKv::kMostWeight);
    return reduce_add(sums[0] + sums[1]);
}

// Makes weights of a query the bytes that ByteKv takes.
PELTON_INLINE void make_byte_weights(BlockRange blocks, ByteScale by, float* scores) {
    for (int64_t i = blocks.begin * kKvBlock; i < blocks.end * kKvBlock; i += kKvBlock) {
        const i32x16 first = to_i32(load(scores + i) * set1(by.inverse)),
                     second = to_i32(load(scores + i + 16) * set1(by.inverse));
        // behind what is still to be read
        store_two_bytes(reinterpret_cast<uint8_t*>(scores) + 2 * i, first, second);
    }
    scores[kChunkPositions / 2] = by.scale;
}

// Turns masked scores into the weights that add_weighed takes, and their sums into states.
template <class Kv>
void make_weights(const AttentionTile& tile, int64_t chunk, BlockRange blocks, float* scores,
                  int64_t state_size, float* states) {
    ByteScale by[kMaxTileQueries];
    for (int64_t q = 0; q < tile.num_queries; ++q) {
        float *row = scores + q * kChunkPositions, *state = states + q * state_size;
        if (!(state[0] > -__builtin_inff())) {                // sees nothing, or no number
            constexpr size_t kBytes = Kv::kRun == 2 ? 2 : 4;  // a position
            const bool nan = state[0] != state[0];
            if (!nan || Kv::kRun == 4)  // keeps -inf - -inf, a NaN, out of what others see as zeros
                memset(
                    reinterpret_cast<uint8_t*>(row) + kBytes * static_cast<size_t>(blocks.begin * kKvBlock),
                    0, kBytes * static_cast<size_t>((blocks.end - blocks.begin) * kKvBlock));
            by[q] = {0.0f, nan ? state[0] : 0.0f};
            state[1] = 0.0f;
        } else if constexpr (Kv::kRun == 4) {
            state[1] = scaled_exponentials(tile, chunk, blocks, state[0], row, by[q]);
        } else if constexpr (Kv::kRun == 2) {
            state[1] = coarse_exponentials(blocks, state[0], row);
        } else {
            state[1] = exponentials(blocks, state[0], row);
        }
    }
    if constexpr (Kv::kRun == 4)  // all scales first, as all maximums
        for (int64_t q = 0; q < tile.num_queries; ++q)
            make_byte_weights(blocks, by[q], scores + q * kChunkPositions);
}

}  // namespace

}  // namespace pelton::PELTON_ISA
