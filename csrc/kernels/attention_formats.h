// How each format of keys and values is read and multiplied. `kRun` neighbours along the sum (elements of a
// key, positions of values) lie together, `Lanes` are 16 of such runs, and each is multiplied by as many
// neighbours of the other factor.
#pragma once

#include "isa/simd.h"
#include "kernels/attention.h"

namespace pelton::PELTON_ISA {

namespace {

#if defined(PELTON_ISA_avx512) || defined(PELTON_ISA_avx512_bf16)
constexpr int kTileQueries = 6, kTileVectors = 4;  // 24 sums, 4 loads and a broadcast of 32 registers
#else
constexpr int kTileQueries = 3, kTileVectors = 2;  // vectors of 16 are two registers of 16
#endif

// Few queries take several blocks of keys at once, so that enough independent sums hide the latency of fma.
template <int kQueries>
constexpr int kFewTogether = kQueries > 3                         ? 1
                             : kTileQueries < 6 && kQueries == 3  ? 1
                             : kTileQueries >= 6 && kQueries == 1 ? kKeysAhead
                                                                  : 2;

struct FloatKv {
    using Type = float;
    using Lanes = f32x16;
    using Factor = float;  // of a query, as it lies in its row
    using Sum = f32x16;
    using Weight = f32x16;
    using WeighedSum = f32x16;
    static constexpr int kRun = 1;
    static constexpr bool kAnySize = true;  // heads need not be multiples of 16
    template <int kQueries>                 // blocks of keys that are multiplied at once
    static constexpr int kTogether = kFewTogether<kQueries>;
    template <int kQueries>  // neighbouring elements of values, in vectors, that are summed at once
    static constexpr int kVectors = kTileVectors;

    static PELTON_INLINE Lanes load16(const Type* p) { return load(p); }
    static PELTON_INLINE f32x16 all(Factor x) { return set1(x); }
    // The start of a query's sums of products with keys, and the scores they come to.
    static PELTON_INLINE Sum start(const float* /*query*/, int64_t /*dim*/) { return set1(0.0f); }
    static PELTON_INLINE Sum add_product(Sum acc, Lanes kv, f32x16 factor) { return fma(kv, factor, acc); }
    static PELTON_INLINE f32x16 score(Sum sum, const float* /*query*/, int64_t /*dim*/, const void* /*block*/,
                                      int /*position*/, float scale) {
        return sum * set1(scale);
    }
    // The weight of run `run` of a block of the chunk whose weights are `row`; sums of values by them.
    static PELTON_INLINE Weight weight(const float* row, int64_t block, int64_t run) {
        return set1(row[block * kKvBlock + run]);
    }
    static PELTON_INLINE WeighedSum no_values() { return set1(0.0f); }
    static PELTON_INLINE WeighedSum add_weighed(WeighedSum acc, Lanes kv, Weight weight) {
        return fma(kv, weight, acc);
    }
    // Adding 0 turns -0 into 0, so that it makes no difference whether unseen positions were added.
    static PELTON_INLINE f32x16 weighed(WeighedSum sum, const float* /*row*/) { return sum + set1(0.0f); }
};

struct HalfKv : FloatKv {
    using Type = uint16_t;
    static PELTON_INLINE Lanes load16(const Type* p) { return load_f16(p); }
};

struct BrainKv : FloatKv {
    using Type = uint16_t;
    using Lanes = i32x16;    // pairs of bfloat16
    using Factor = int32_t;  // a pair of
    using Weight = i32x16;
    static constexpr int kRun = 2;
    static PELTON_INLINE Lanes load16(const Type* p) { return load_i32(reinterpret_cast<const int32_t*>(p)); }
    static PELTON_INLINE i32x16 all(Factor x) { return set1_i32(x); }
    static PELTON_INLINE Sum add_product(Sum acc, Lanes kv, i32x16 factor) {
        return add_bf16_products(acc, kv, factor);
    }
    static PELTON_INLINE Weight weight(const float* row, int64_t block, int64_t run) {
        return set1_i32(reinterpret_cast<const int32_t*>(row)[block * kKvBlock / 2 + run]);
    }
    static PELTON_INLINE WeighedSum add_weighed(WeighedSum acc, Lanes kv, Weight weight) {
        return add_bf16_products(acc, kv, weight);
    }
};

// All sums are of integers and exact. A weight has 16 bits, the high 8 and the low 8 in bytes of their own: a
// row has, for every 32 positions, 32 high bytes, then 32 low ones, and behind those of a chunk their scale.
struct ByteKv {
    using Type = uint8_t;    // keys 128 too large, values signed
    using Lanes = u8x64;     // fours of bytes
    using Factor = int32_t;  // four bytes of
    using Sum = i32x16;
    struct Weight {
        u8x64 high, low;  // of four positions
    };
    struct WeighedSum {
        i32x16 high, low;
    };
    static constexpr int kRun = 4;
    static constexpr bool kAnySize = false;
    // Blocks have half the bytes of others: as many bytes are asked for ahead.
    template <int kQueries>
    static constexpr int kTogether = kTileQueries >= 6 && kQueries == 3 ? 4 : kFewTogether<kQueries>;
    template <int kQueries>  // of two sums each
    static constexpr int kVectors = 2 * kQueries <= kTileQueries ? kTileVectors : kTileVectors / 2;
    static constexpr float kMostWeight = 65535.0f;  // 256 of them times 127 are less than 2^31

    static PELTON_INLINE Lanes load16(const Type* p) { return load_u8x64(p); }
    static PELTON_INLINE i32x16 all(Factor x) { return set1_i32(x); }
    static PELTON_INLINE ByteQueryTail query_tail(const float* query, int64_t dim) {
        ByteQueryTail tail;
        memcpy(&tail, query + dim / 4, sizeof tail);
        return tail;
    }
    static PELTON_INLINE const float* scales(const void* block, int64_t dim) {
        return reinterpret_cast<const float*>(static_cast<const uint8_t*>(block) + byte_scales_place(dim));
    }
    static PELTON_INLINE Sum start(const float* query, int64_t dim) {
        return set1_i32(query_tail(query, dim).start);
    }
    static PELTON_INLINE Sum add_product(Sum acc, Lanes kv, i32x16 factor) {
        return add_byte_products(acc, kv, factor);
    }
    static PELTON_INLINE f32x16 score(Sum sum, const float* query, int64_t dim, const void* block,
                                      int position, float scale) {
        const f32x16 both = set1(query_tail(query, dim).scale * scale);
        return to_f32(sum) * (load(scales(block, dim) + position) * both);
    }
    static PELTON_INLINE Weight weight(const float* row, int64_t block, int64_t run) {
        const auto* fours = reinterpret_cast<const int32_t*>(row) + block * kKvBlock / 2 + run;
        return {as_bytes(set1_i32(fours[0])), as_bytes(set1_i32(fours[kKvBlock / 4]))};
    }
    static PELTON_INLINE WeighedSum no_values() { return {set1_i32(0), set1_i32(0)}; }
    static PELTON_INLINE WeighedSum add_weighed(WeighedSum acc, Lanes kv, Weight weight) {
        return {add_byte_products(acc.high, weight.high, as_i32(kv)),
                add_byte_products(acc.low, weight.low, as_i32(kv))};
    }
    static PELTON_INLINE f32x16 weighed(WeighedSum sum, const float* row) {
        return to_f32(shift_left<8>(sum.high) + sum.low) * set1(row[kChunkPositions / 2]);
    }
};

}  // namespace

}  // namespace pelton::PELTON_ISA
