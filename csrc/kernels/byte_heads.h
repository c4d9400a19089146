// Heads as bytes: how keys and values of 8 bits are stored and queries made to fit them.
//
// A key or value is a scale and a byte an element, as in "Inference Performance Optimization for Large
// Language Models on CPUs" (He et al. 2024). One large element of a key would leave the others few of the 255
// steps, so keys and queries are turned by a Walsh-Hadamard matrix first, which spreads every element over
// all and leaves products as they were ("QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", Ashkboos et
// al. 2024): keys lose 2e-4 instead of 1.1e-3 nats. Adds and subtracts in one order: every level has the same
// bits.
#pragma once

#include "isa/simd.h"
#include "kernels/attention.h"

namespace pelton::PELTON_ISA {

namespace {

// Magnitudes below 1e-30 become 0, so that most / largest is finite; infinity and NaN a scale of NaN.
struct ByteScale {
    float inverse, scale;
};
PELTON_INLINE ByteScale byte_scale(float largest, float most) {
    if (!(largest < __builtin_inff())) return {0.0f, __builtin_nanf("")};
    if (largest > 1e-30f) return {most / largest, largest / most};
    return {0.0f, 0.0f};
}

// Selecting keeps NaN and infinity out of the conversion to integers.
PELTON_INLINE i32x16 byte_codes(f32x16 x, ByteScale by) {
    return to_i32(select(first_lanes(by.inverse > 0.0f ? 16 : 0), x, set1(0.0f)) * set1(by.inverse));
}

// Of x and of what the lane at that distance has: the sum in the first of the two, the difference in the
// second.
template <int kDistance>
PELTON_INLINE f32x16 turned(f32x16 x) {
    alignas(64) static const float kSigns[16] = {1,
                                                 kDistance & 1 ? -1 : 1,
                                                 kDistance & 2 ? -1 : 1,
                                                 kDistance & 3 ? -1 : 1,
                                                 kDistance & 4 ? -1 : 1,
                                                 kDistance & 5 ? -1 : 1,
                                                 kDistance & 6 ? -1 : 1,
                                                 kDistance & 7 ? -1 : 1,
                                                 kDistance & 8 ? -1 : 1,
                                                 kDistance & 9 ? -1 : 1,
                                                 kDistance & 10 ? -1 : 1,
                                                 kDistance & 11 ? -1 : 1,
                                                 kDistance & 12 ? -1 : 1,
                                                 kDistance & 13 ? -1 : 1,
                                                 kDistance & 14 ? -1 : 1,
                                                 kDistance & 15 ? -1 : 1};
    return fma(x, load(kSigns), exchanged<kDistance>(x));
}

// v := H v with the Walsh-Hadamard matrix of 16 * kCount rows, +1 and -1.
template <int kCount>
PELTON_INLINE void turn_vectors(f32x16* v) {
    PELTON_UNROLL for (int i = 0; i < kCount; ++i) v[i] = turned<8>(turned<4>(turned<2>(turned<1>(v[i]))));
    PELTON_UNROLL for (int distance = 1; distance < kCount; distance *= 2)
        PELTON_UNROLL for (int i = 0; i < kCount; ++i) if ((i & distance) == 0) {
        const f32x16 low = v[i], high = v[i + distance];
        v[i] = low + high;
        v[i + distance] = low - high;
    }
}

// A head of any multiple of 16 in memory: kCount vectors at a time, then those further apart.
template <int kCount>
PELTON_INLINE void turn_memory(float* x, int64_t dim) {
    for (int64_t i = 0; i < dim; i += 16 * kCount) {
        f32x16 v[kCount];
        PELTON_UNROLL for (int j = 0; j < kCount; ++j) v[j] = load(x + i + 16 * j);
        turn_vectors<kCount>(v);
        PELTON_UNROLL for (int j = 0; j < kCount; ++j) store(x + i + 16 * j, v[j]);
    }
    for (int64_t distance = 16 * kCount; distance < (dim & -dim); distance *= 2)
        for (int64_t i = 0; i < dim; i += 16) {
            if ((i & distance) != 0) continue;
            const f32x16 low = load(x + i), high = load(x + i + distance);
            store(x + i, low + high);
            store(x + i + distance, low - high);
        }
}

// x := H x with the matrix of the largest power of two that divides `dim`: H H is so many times the identity.
PELTON_INLINE void turn_head(float* x, int64_t dim) {
    if (dim % 64 == 0) return turn_memory<4>(x, dim);
    if (dim % 32 == 0) return turn_memory<2>(x, dim);
    turn_memory<1>(x, dim);
}

PELTON_INLINE float as_magnitude(i32x16 magnitude_bits) {
    const int32_t bits = reduce_max(magnitude_bits);
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

PELTON_INLINE i32x16 magnitude_bits(f32x16 x) { return as_i32(x) & set1_i32(0x7fffffff); }

PELTON_INLINE void place_query_tail(float* query, int64_t dim, ByteScale by, i32x16 sum) {
    const ByteQueryTail tail{by.scale / static_cast<float>(dim & -dim), -128 * reduce_add(sum)};
    memcpy(query + dim / 4, &tail, sizeof tail);
}

// The usual size stays in registers: 0.8 of the time, in samples of a prompt. Several at once leave less to
// wait for.
template <int kQueries>
PELTON_INLINE void make_byte_queries_of_64(float* queries) {
    f32x16 v[kQueries][4];
    ByteScale by[kQueries];
    PELTON_UNROLL for (int q = 0; q < kQueries; ++q) {
        PELTON_UNROLL for (int i = 0; i < 4; ++i) v[q][i] = load(queries + 64 * q + 16 * i);
        turn_vectors<4>(v[q]);
    }
    PELTON_UNROLL for (int q = 0; q < kQueries; ++q) by[q] =
        byte_scale(as_magnitude(max(max(magnitude_bits(v[q][0]), magnitude_bits(v[q][1])),
                                    max(magnitude_bits(v[q][2]), magnitude_bits(v[q][3])))),
                   127.0f);
    PELTON_UNROLL for (int q = 0; q < kQueries; ++q) {
        float* query = queries + 64 * q;
        i32x16 codes[4];
        PELTON_UNROLL for (int i = 0; i < 4; ++i) {
            codes[i] = byte_codes(v[q][i], by[q]);
            store_i8(reinterpret_cast<int8_t*>(query) + 16 * i, codes[i]);
        }
        place_query_tail(query, 64, by[q], (codes[0] + codes[1]) + (codes[2] + codes[3]));
    }
}

// In place: the row's first quarter becomes the query's bytes, then comes its tail.
PELTON_INLINE void make_byte_query(float* query, int64_t dim) {
    turn_head(query, dim);
    i32x16 largest = set1_i32(0), sum = set1_i32(0);  // bits compare as magnitudes do, with NaN the greatest
    for (int64_t i = 0; i < dim; i += 16) largest = max(largest, magnitude_bits(load(query + i)));
    const ByteScale by = byte_scale(as_magnitude(largest), 127.0f);
    for (int64_t i = 0; i < dim; i += 16) {
        const i32x16 codes = byte_codes(load(query + i), by);
        sum = sum + codes;
        store_i8(reinterpret_cast<int8_t*>(query) + i, codes);
    }
    place_query_tail(query, dim, by, sum);
}

PELTON_INLINE void make_byte_queries(float* queries, int64_t count, int64_t dim) {
    int64_t q = 0;
    if (dim == 64) {
        for (; q + 3 <= count; q += 3) make_byte_queries_of_64<3>(queries + 64 * q);
        for (; q < count; ++q) make_byte_queries_of_64<1>(queries + 64 * q);
    }
    for (; q < count; ++q) make_byte_query(queries + dim * q, dim);
}

// Rounds numbers to bytes and stores their scale in the block; stored(i, codes) gets the 16 from element i
// on.
template <class Stored>
PELTON_INLINE void store_byte_head(float* numbers, int64_t dim, void* block, int64_t position,
                                   Stored stored) {
    const f32x16 most = set1(1e30f), least = set1(-1e30f);  // sums over a head are finite
    i32x16 largest = set1_i32(0);
    for (int64_t i = 0; i < dim; i += 16) {  // a NaN becomes the least: max returns its second operand then
        const f32x16 x = min(max(load(numbers + i), least), most);
        largest = max(largest, magnitude_bits(x));
        store(numbers + i, x);
    }
    const ByteScale by = byte_scale(as_magnitude(largest), 127.0f);
    for (int64_t i = 0; i < dim; i += 16) {
        uint32_t codes[4];
        store_i8(reinterpret_cast<int8_t*>(codes), to_i32(load(numbers + i) * set1(by.inverse)));
        stored(i, codes);
    }
    memcpy(static_cast<uint8_t*>(block) + byte_scales_place(dim) + 4 * position, &by.scale, 4);
}

PELTON_INLINE void store_bytes(const float* key, const float* value, int64_t dim, int64_t position,
                               void* keys, void* values) {
    float numbers[kMostByteElements];
    memcpy(numbers, key, static_cast<size_t>(dim) * sizeof(float));
    turn_head(numbers, dim);
    auto* to_keys = static_cast<uint32_t*>(keys) + position;
    store_byte_head(numbers, dim, keys, position, [&](int64_t i, const uint32_t* codes) {
        for (int64_t j = 0; j < 4; ++j) to_keys[(i / 4 + j) * kKvBlock] = codes[j] ^ 0x80808080u;
    });
    memcpy(numbers, value, static_cast<size_t>(dim) * sizeof(float));
    auto* to_values = static_cast<uint8_t*>(values) + value_place(KvFormat::kInt8, position, 0, dim);
    store_byte_head(numbers, dim, values, position, [&](int64_t i, const uint32_t* codes) {
        store_apart(to_values + 4 * i, reinterpret_cast<const uint8_t*>(codes));
    });
}

}  // namespace

}  // namespace pelton::PELTON_ISA
