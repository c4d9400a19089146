// Sixteen lanes in plain C++ for any processor; the definition the other levels are tested against.
// Included by simd.h only. Loops of constant length 16, which compilers turn into what the target has.
#pragma once

#include "isa/half.h"

namespace pelton::PELTON_ISA {

struct f32x16 {
    float v[16];
};
struct i32x16 {
    int32_t v[16];
};
struct u8x64 {
    uint8_t v[64];
};
struct mask16 {
    bool v[16];
};

#define PELTON_LANES(result_type, expression)           \
    result_type r;                                      \
    for (int i = 0; i < 16; ++i) r.v[i] = (expression); \
    return r;

// float32
PELTON_INLINE f32x16 set1(float x){PELTON_LANES(f32x16, x)} PELTON_INLINE f32x16
    load(const float* p){PELTON_LANES(f32x16, p[i])} PELTON_INLINE void store(float* p, f32x16 a) {
    memcpy(p, a.v, sizeof a.v);
}
PELTON_INLINE mask16 first_lanes(int count){PELTON_LANES(mask16, i < count)} PELTON_INLINE f32x16
    load_first(const float* p, int count){PELTON_LANES(f32x16, i < count ? p[i] : 0.0f)} PELTON_INLINE
    void store_first(float* p, int count, f32x16 a) {
    for (int i = 0; i < count; ++i) p[i] = a.v[i];
}
PELTON_INLINE f32x16 operator+(f32x16 a, f32x16 b){
    PELTON_LANES(f32x16, a.v[i] + b.v[i])} PELTON_INLINE f32x16 operator-(f32x16 a, f32x16 b){
    PELTON_LANES(f32x16, a.v[i] - b.v[i])} PELTON_INLINE f32x16 operator*(f32x16 a, f32x16 b){
    PELTON_LANES(f32x16, a.v[i] * b.v[i])} PELTON_INLINE f32x16 operator/(f32x16 a, f32x16 b){
    PELTON_LANES(f32x16, a.v[i] / b.v[i])} PELTON_INLINE f32x16
    fma(f32x16 a, f32x16 b, f32x16 c){PELTON_LANES(f32x16, a.v[i] * b.v[i] + c.v[i])} PELTON_INLINE f32x16
    max(f32x16 a, f32x16 b){PELTON_LANES(f32x16, a.v[i] > b.v[i] ? a.v[i] : b.v[i])} PELTON_INLINE f32x16
    min(f32x16 a, f32x16 b){PELTON_LANES(f32x16, a.v[i] < b.v[i] ? a.v[i] : b.v[i])} PELTON_INLINE f32x16
    sqrt(f32x16 a){PELTON_LANES(f32x16, __builtin_sqrtf(a.v[i]))} PELTON_INLINE f32x16
    round_even(f32x16 a){PELTON_LANES(f32x16, __builtin_nearbyintf(a.v[i]))} PELTON_INLINE mask16
    less(f32x16 a, f32x16 b){PELTON_LANES(mask16, a.v[i] < b.v[i])} PELTON_INLINE mask16
    not_less(f32x16 a, f32x16 b){PELTON_LANES(mask16, !(a.v[i] < b.v[i]))} PELTON_INLINE f32x16
    select(mask16 m, f32x16 a, f32x16 b){PELTON_LANES(f32x16, m.v[i] ? a.v[i] : b.v[i])} PELTON_INLINE
    bool any(mask16 m) {
    bool found = false;
    for (int i = 0; i < 16; ++i) found = found || m.v[i];
    return found;
}

// Lane i takes what lane i ^ kDistance has.
template <int kDistance>
PELTON_INLINE f32x16 exchanged(f32x16 a){PELTON_LANES(f32x16, a.v[i ^ kDistance])}

// 32 floats: those at even places and those at odd ones.
PELTON_INLINE void load_pairs(const float* p, f32x16& even, f32x16& odd) {
    for (int i = 0; i < 16; ++i) {
        even.v[i] = p[2 * i];
        odd.v[i] = p[2 * i + 1];
    }
}
PELTON_INLINE void store_pairs(float* p, f32x16 even, f32x16 odd) {
    for (int i = 0; i < 16; ++i) {
        p[2 * i] = even.v[i];
        p[2 * i + 1] = odd.v[i];
    }
}

// int32 and bit casts; sums wrap as the vector instructions do
PELTON_INLINE int32_t wrap(uint32_t x) { return static_cast<int32_t>(x); }
PELTON_INLINE uint32_t bits(int32_t x) { return static_cast<uint32_t>(x); }
PELTON_INLINE i32x16 set1_i32(int32_t x){PELTON_LANES(i32x16, x)} PELTON_INLINE i32x16
    load_i32(const int32_t* p){PELTON_LANES(i32x16, p[i])} PELTON_INLINE
    void store_i32(int32_t* p, i32x16 a) {
    memcpy(p, a.v, sizeof a.v);
}
PELTON_INLINE i32x16 operator+(i32x16 a, i32x16 b){
    PELTON_LANES(i32x16, wrap(bits(a.v[i]) + bits(b.v[i])))} PELTON_INLINE i32x16 operator-(i32x16 a,
                                                                                            i32x16 b){
    PELTON_LANES(i32x16, wrap(bits(a.v[i]) - bits(b.v[i])))} PELTON_INLINE i32x16 operator&(i32x16 a,
                                                                                            i32x16 b){
    PELTON_LANES(i32x16, a.v[i] & b.v[i])} PELTON_INLINE i32x16 max(i32x16 a, i32x16 b) {
    PELTON_LANES(i32x16, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
}
template <int kBits>
PELTON_INLINE i32x16 shift_left(i32x16 a) {
    PELTON_LANES(i32x16, wrap(bits(a.v[i]) << kBits))
}
template <int kBits>  // arithmetic
PELTON_INLINE i32x16 shift_right(i32x16 a){PELTON_LANES(i32x16, a.v[i] >> kBits)} PELTON_INLINE i32x16
    as_i32(f32x16 a){PELTON_LANES(i32x16, wrap(bits_of_float(a.v[i])))} PELTON_INLINE f32x16
    as_f32(i32x16 a){PELTON_LANES(f32x16, float_of_bits(bits(a.v[i])))}
// Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low bits: right for |x| < 2^22, and a
// NaN gives some integer instead of undefined behaviour.
PELTON_INLINE i32x16 to_i32(f32x16 a){
    PELTON_LANES(i32x16, wrap(bits_of_float(a.v[i] + 12582912.0f) - 0x4b400000u))} PELTON_INLINE f32x16
    to_f32(i32x16 a){PELTON_LANES(f32x16, static_cast<float>(a.v[i]))} PELTON_INLINE
    void store_i8(int8_t* p, i32x16 a) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}

// Of 32 numbers 0..65535 the 32 high bytes, then the 32 low ones.
PELTON_INLINE void store_two_bytes(uint8_t* p, i32x16 first, i32x16 second) {
    for (int i = 0; i < 16; ++i) {
        p[i] = static_cast<uint8_t>(bits(first.v[i]) >> 8 & 255);
        p[16 + i] = static_cast<uint8_t>(bits(second.v[i]) >> 8 & 255);
        p[32 + i] = static_cast<uint8_t>(bits(first.v[i]) & 255);
        p[48 + i] = static_cast<uint8_t>(bits(second.v[i]) & 255);
    }
}

PELTON_INLINE f32x16 load_i8(const int8_t* p){PELTON_LANES(f32x16, static_cast<float>(p[i]))}

// float16 and bfloat16
PELTON_INLINE f32x16 load_f16(const uint16_t* p){PELTON_LANES(f32x16, widen_f16(p[i]))} PELTON_INLINE
    void store_f16(uint16_t* p, f32x16 a) {
    for (int i = 0; i < 16; ++i) p[i] = narrow_f16(a.v[i]);
}
PELTON_INLINE uint16_t narrow_bf16(float x) {
    const uint32_t all = bits_of_float(x);
    const bool nan = (all & 0x7fffffffu) > 0x7f800000u;
    return static_cast<uint16_t>((nan ? (all | 0x400000u) : (all + 0x7fffu + ((all >> 16) & 1u))) >> 16);
}
PELTON_INLINE f32x16 load_bf16(const uint16_t* p){PELTON_LANES(f32x16, widen_bf16(p[i]))} PELTON_INLINE
    void store_bf16(uint16_t* p, f32x16 a) {
    for (int i = 0; i < 16; ++i) p[i] = narrow_bf16(a.v[i]);
}
// Sixteen dwords of two bfloat16 each: the low halves, the high halves.
PELTON_INLINE f32x16 bf16_low(i32x16 pairs) { return as_f32(shift_left<16>(pairs)); }
PELTON_INLINE f32x16 bf16_high(i32x16 pairs) { return as_f32(pairs & set1_i32(-65536)); }

// Reductions in one fixed tree: lane i with i + 8, then + 4, + 2, + 1.
PELTON_INLINE float reduce_add(f32x16 a) {
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) a.v[i] = a.v[i] + a.v[i + half];
    return a.v[0];
}
PELTON_INLINE float reduce_max(f32x16 a) {
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
    return a.v[0];
}
PELTON_INLINE int32_t reduce_add(i32x16 a) {
    uint32_t sum = 0;
    for (int i = 0; i < 16; ++i) sum += bits(a.v[i]);
    return wrap(sum);
}
PELTON_INLINE int32_t reduce_max(i32x16 a) {
    int32_t largest = a.v[0];
    for (int i = 1; i < 16; ++i) largest = a.v[i] > largest ? a.v[i] : largest;
    return largest;
}

// Integer dot products: byte 4 * lane + b of `codes` (unsigned) times q[b] (signed), b = 0..3.
PELTON_INLINE u8x64 load_u8x64(const uint8_t* p) {
    u8x64 r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
PELTON_INLINE void store_u8x64(uint8_t* p, u8x64 a) { memcpy(p, a.v, sizeof a.v); }
PELTON_INLINE u8x64 as_bytes(i32x16 a) {
    u8x64 r;
    memcpy(r.v, a.v, sizeof r.v);
    return r;
}
PELTON_INLINE i32x16 as_i32(u8x64 a) {
    i32x16 r;
    memcpy(r.v, a.v, sizeof r.v);
    return r;
}
PELTON_INLINE u8x64 low_nibbles(u8x64 a) {
    for (int i = 0; i < 64; ++i) a.v[i] &= 15;
    return a;
}
PELTON_INLINE u8x64 high_nibbles(u8x64 a) {
    for (int i = 0; i < 64; ++i) a.v[i] >>= 4;
    return a;
}
// High nibbles where they are: 16 times the codes.
PELTON_INLINE u8x64 upper_nibbles(u8x64 a) {
    for (int i = 0; i < 64; ++i) a.v[i] &= 0xf0;
    return a;
}
PELTON_INLINE u8x64 load_table(const uint8_t* p) {
    u8x64 r;
    for (int i = 0; i < 64; ++i) r.v[i] = p[i % 16];
    return r;
}
PELTON_INLINE u8x64 lookup(u8x64 table, u8x64 index) {
    for (int i = 0; i < 64; ++i) index.v[i] = table.v[index.v[i]];
    return index;
}
// acc + the four bytes of each lane of `codes` (unsigned) times those of `factors` (signed).
PELTON_INLINE i32x16 add_byte_products(i32x16 acc, u8x64 codes, i32x16 factors) {
    for (int i = 0; i < 16; ++i)
        for (int b = 0; b < 4; ++b)
            acc.v[i] += codes.v[4 * i + b] * static_cast<int8_t>((bits(factors.v[i]) >> (8 * b)) & 0xff);
    return acc;
}
template <bool kNarrow>
struct DotSum {
    i32x16 sum;
    static constexpr bool kTakesStart = true;
    static PELTON_INLINE DotSum from(i32x16 start) { return {start}; }
    PELTON_INLINE void step(u8x64 codes, const int8_t* q) {
        for (int i = 0; i < 16; ++i)
            for (int b = 0; b < 4; ++b) sum.v[i] += codes.v[4 * i + b] * q[b];
    }
    PELTON_INLINE void step(u8x64 codes, i32x16 factors) { sum = add_byte_products(sum, codes, factors); }
    PELTON_INLINE i32x16 total() const { return sum; }
};
// acc + low half of each lane of `weights` * pair[0] + high half * pair[1], all int16.
PELTON_INLINE i32x16 add_pair_products(i32x16 acc, i32x16 weights, const int16_t* pair) {
    for (int i = 0; i < 16; ++i) {
        const int32_t low = static_cast<int16_t>(weights.v[i] & 0xffff), high = weights.v[i] >> 16;
        acc.v[i] += low * pair[0] + high * pair[1];
    }
    return acc;
}
PELTON_INLINE int32_t low_half(int32_t x) { return static_cast<int16_t>(x & 0xffff); }
// acc + low halves' product + high halves' product, of int16.
PELTON_INLINE i32x16 add_pair_products(i32x16 acc, i32x16 a, i32x16 b) {
    for (int i = 0; i < 16; ++i)
        acc.v[i] += low_half(a.v[i]) * low_half(b.v[i]) + (a.v[i] >> 16) * (b.v[i] >> 16);
    return acc;
}
// Products of halves, int16, without their last 15 bits, to the nearest.
PELTON_INLINE i32x16 scaled_pairs(i32x16 a, i32x16 b) {
    for (int i = 0; i < 16; ++i) {
        const int32_t low = (low_half(a.v[i]) * low_half(b.v[i]) + 0x4000) >> 15;
        const int32_t high = ((a.v[i] >> 16) * (b.v[i] >> 16) + 0x4000) >> 15;
        a.v[i] = wrap(bits(high) << 16 | (bits(low) & 0xffff));
    }
    return a;
}
PELTON_INLINE void stream(float* p, f32x16 a) { store(p, a); }
PELTON_INLINE void stream_fence() {}
#undef PELTON_LANES

}  // namespace pelton::PELTON_ISA
