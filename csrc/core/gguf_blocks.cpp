#include "core/gguf_blocks.h"

#include <cstring>

#include "core/errors.h"
#include "core/packed_weight.h"

namespace pelton {

namespace {

std::uint16_t half_bits(const std::uint8_t* place) {
    std::uint16_t half;
    std::memcpy(&half, place, 2);
    return half;
}

float half_at(const std::uint8_t* place) { return widen_f16(half_bits(place)); }

void read_nibbles(const std::uint8_t* bytes, BlockValues& v) {
    for (int i = 0; i < 16; ++i) {
        v.codes[i] = bytes[i] & 15;
        v.codes[i + 16] = bytes[i] >> 4;
    }
}

// Adds bit i of `high` to code i as its fifth bit.
void read_fifth_bits(const std::uint8_t* place, BlockValues& v) {
    std::uint32_t high;
    std::memcpy(&high, place, 4);
    for (int i = 0; i < 32; ++i) v.codes[i] = static_cast<std::uint8_t>(v.codes[i] | ((high >> i) & 1u) << 4);
}

// Q4_0: d, 16 bytes of nibbles.
void read_q4_0(const std::uint8_t* b, int, BlockValues& v) {
    v.scales[0] = half_at(b);
    read_nibbles(b + 2, v);
}

// Q4_1: d, minimum, nibbles.
void read_q4_1(const std::uint8_t* b, int, BlockValues& v) {
    v.scales[0] = half_at(b);
    v.minimums[0] = half_at(b + 2);
    read_nibbles(b + 4, v);
}

// Q5_0: d, 32 fifth bits, nibbles.
void read_q5_0(const std::uint8_t* b, int, BlockValues& v) {
    v.scales[0] = half_at(b);
    read_nibbles(b + 6, v);
    read_fifth_bits(b + 2, v);
}

// Q5_1: d, minimum, 32 fifth bits, nibbles.
void read_q5_1(const std::uint8_t* b, int, BlockValues& v) {
    v.scales[0] = half_at(b);
    v.minimums[0] = half_at(b + 2);
    read_nibbles(b + 8, v);
    read_fifth_bits(b + 4, v);
}

// Q8_0: d, 32 signed bytes.
void read_q8_0(const std::uint8_t* b, int, BlockValues& v) {
    v.scales[0] = half_at(b);
    for (int i = 0; i < 32; ++i) v.codes[i] = b[2 + i] ^ 0x80;
}

// The 6-bit scale and minimum of part 0..7 of a K block: twelve bytes, the upper bits of parts 4..7 at the
// top of the first eight.
void read_k_scales(const std::uint8_t* b, const std::uint8_t* s, int part, BlockValues& v) {
    const int scale = part < 4 ? s[part] & 63 : (s[part + 4] & 15) | (s[part - 4] >> 6) << 4;
    const int minimum = part < 4 ? s[part + 4] & 63 : (s[part + 4] >> 4) | (s[part] >> 6) << 4;
    v.scales[0] = static_cast<float>(scale);
    v.minimums[0] = static_cast<float>(minimum);
    v.super_scale = half_bits(b);
    v.super_minimum = half_bits(b + 2) ^ 0x8000u;
}

// 32 nibbles of part 0..7: two parts share 32 bytes, the even one in the low nibbles.
void read_k_nibbles(const std::uint8_t* bytes, int part, BlockValues& v) {
    const std::uint8_t* from = bytes + part / 2 * 32;
    const int shift = part % 2 * 4;
    for (int i = 0; i < 32; ++i) v.codes[i] = (from[i] >> shift) & 15;
}

// Q4_K: d, dmin, 12 bytes of scales, 128 bytes of nibbles.
void read_q4_k(const std::uint8_t* b, int part, BlockValues& v) {
    read_k_scales(b, b + 4, part, v);
    read_k_nibbles(b + 16, part, v);
}

// Q5_K: as Q4_K with 32 bytes of fifth bits (bit `part` of byte i) before the nibbles.
void read_q5_k(const std::uint8_t* b, int part, BlockValues& v) {
    read_k_scales(b, b + 4, part, v);
    read_k_nibbles(b + 48, part, v);
    for (int i = 0; i < 32; ++i)
        v.codes[i] = static_cast<std::uint8_t>(v.codes[i] | ((b[16 + i] >> part) & 1) << 4);
}

// Q6_K: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d.
void read_q6_k(const std::uint8_t* b, int part, BlockValues& v) {
    const int half = part / 4, quarter = part % 4;
    const std::uint8_t* low = b + half * 64 + quarter % 2 * 32;
    const std::uint8_t* high = b + 128 + half * 32;
    for (int i = 0; i < 32; ++i) {
        const int nibble = (low[i] >> (quarter / 2 * 4)) & 15;
        v.codes[i] = static_cast<std::uint8_t>(nibble | ((high[i] >> (2 * quarter)) & 3) << 4);
    }
    for (int s = 0; s < 2; ++s) {
        const auto scale = static_cast<std::int8_t>(b[192 + half * 8 + quarter * 2 + s]);
        v.scales[s] = static_cast<float>(scale);
    }
    v.super_scale = half_bits(b + 208);
}

constexpr WeightLayout layout(int bits, int group, bool half_scales, bool has_minimum, int offset) {
    WeightLayout made;
    made.kind = WeightKind::kBlock;
    made.bits = static_cast<std::uint8_t>(bits);
    made.group = static_cast<std::uint8_t>(group);
    made.half_scales = half_scales;
    made.has_minimum = has_minimum;
    made.offset = static_cast<std::int16_t>(offset);
    return made;
}

constexpr WeightLayout with_super_scales(int bits, int group, bool has_minimum, int offset) {
    WeightLayout made = layout(bits, group, false, has_minimum, offset);
    made.super_scales = true;
    return made;
}

const GgufBlockReader kReaders[] = {
    {"Q4_0", 32, 18, layout(4, 32, true, false, 8), read_q4_0},
    {"Q4_1", 32, 20, layout(4, 32, true, true, 0), read_q4_1},
    {"Q5_0", 32, 22, layout(8, 32, true, false, 16), read_q5_0},
    {"Q5_1", 32, 24, layout(8, 32, true, true, 0), read_q5_1},
    {"Q8_0", 32, 34, layout(8, 32, true, false, 128), read_q8_0},
    {"Q4_K", 256, 144, with_super_scales(4, 32, true, 0), read_q4_k},
    {"Q5_K", 256, 176, with_super_scales(8, 32, true, 0), read_q5_k},
    {"Q6_K", 256, 210, with_super_scales(8, 16, false, 32), read_q6_k},
};

}  // namespace

bool same_layout(const WeightLayout& a, const WeightLayout& b) noexcept {
    return a.kind == b.kind && a.bits == b.bits && a.group == b.group && a.half_scales == b.half_scales &&
           a.super_scales == b.super_scales && a.has_minimum == b.has_minimum && a.has_table == b.has_table &&
           a.offset == b.offset && std::memcmp(a.table, b.table, sizeof a.table) == 0;
}

bool reads_gguf(const std::string& format) noexcept {
    for (const GgufBlockReader& reader : kReaders)
        if (format == reader.name) return true;
    return false;
}

const GgufBlockReader& gguf_block_reader(const std::string& format) {
    for (const GgufBlockReader& reader : kReaders)
        if (format == reader.name) return reader;
    throw Error(ErrorKind::kUnsupported, "no native reader for GGUF blocks of format " + format);
}

WeightLayout gguf_layout(const std::string& format) { return gguf_block_reader(format).layout; }

std::int64_t gguf_row_bytes(const std::string& format, std::int64_t inputs) {
    const GgufBlockReader& reader = gguf_block_reader(format);
    require(inputs > 0 && inputs % reader.block_inputs == 0,
            "rows of GGUF blocks are a whole number of blocks");
    return inputs / reader.block_inputs * reader.block_bytes;
}

}  // namespace pelton
