#include "core/gguf_blocks.h"

#include <cstring>
#include <utility>

#include "core/errors.h"
#include "core/packed_weight.h"

namespace pelton {

namespace {

constexpr WeightLayout layout_of(int bits, int group, bool has_minimum, int offset) {
    WeightLayout made;
    made.kind = WeightKind::kBlock;
    made.bits = static_cast<std::uint8_t>(bits);
    made.group = static_cast<std::uint8_t>(group);
    made.half_scales = true;
    made.has_minimum = has_minimum;
    made.offset = static_cast<std::int16_t>(offset);
    return made;
}

constexpr WeightLayout with_super_scales(int bits, int group, bool has_minimum, int offset) {
    WeightLayout made = layout_of(bits, group, has_minimum, offset);
    made.half_scales = false;
    made.super_scales = true;
    return made;
}

std::uint16_t half_bits(const std::uint8_t* place) {
    std::uint16_t half;
    std::memcpy(&half, place, 2);
    return half;
}

void read_nibbles(const std::uint8_t* bytes, StoredBlock& b) {
    for (int i = 0; i < 16; ++i) {
        b.codes[i] = bytes[i] & 15;
        b.codes[i + 16] = bytes[i] >> 4;
    }
}

// Adds bit i of 32 to code i as its fifth bit, eight at a time: bit k of a byte stays in the k-th of its
// eight copies, which then overflows into bit 7.
void read_fifth_bits(const std::uint8_t* place, StoredBlock& b) {
    for (int i = 0; i < 4; ++i) {
        std::uint64_t codes;
        std::memcpy(&codes, b.codes + 8 * i, 8);
        const std::uint64_t own = place[i] * 0x0101010101010101u & 0x8040201008040201u;
        codes |= (own + 0x7f7f7f7f7f7f7f7fu) >> 3 & 0x1010101010101010u;
        std::memcpy(b.codes + 8 * i, &codes, 8);
    }
}

// Each format: its name, inputs and bytes of a block, its layout, and how inputs 32 * part .. of a block are
// read. A minimum is what is added, so formats that subtract it are negated.

struct Q4_0 {  // d, 16 bytes of nibbles as a panel has them
    static constexpr const char* kName = "Q4_0";
    static constexpr int kInputs = 32, kBytes = 18;
    static constexpr WeightLayout kLayout = layout_of(4, 32, false, 8);
    static void read(const std::uint8_t* from, int, StoredBlock& b) {
        b.scales[0] = half_bits(from);
        std::memcpy(b.codes, from + 2, 16);
    }
};

struct Q4_1 {  // d, minimum, nibbles
    static constexpr const char* kName = "Q4_1";
    static constexpr int kInputs = 32, kBytes = 20;
    static constexpr WeightLayout kLayout = layout_of(4, 32, true, 0);
    static void read(const std::uint8_t* from, int, StoredBlock& b) {
        b.scales[0] = half_bits(from);
        b.minimums[0] = half_bits(from + 2);
        std::memcpy(b.codes, from + 4, 16);
    }
};

struct Q5_0 {  // d, 32 fifth bits, nibbles
    static constexpr const char* kName = "Q5_0";
    static constexpr int kInputs = 32, kBytes = 22;
    static constexpr WeightLayout kLayout = layout_of(8, 32, false, 16);
    static void read(const std::uint8_t* from, int, StoredBlock& b) {
        b.scales[0] = half_bits(from);
        read_nibbles(from + 6, b);
        read_fifth_bits(from + 2, b);
    }
};

struct Q5_1 {  // d, minimum, 32 fifth bits, nibbles
    static constexpr const char* kName = "Q5_1";
    static constexpr int kInputs = 32, kBytes = 24;
    static constexpr WeightLayout kLayout = layout_of(8, 32, true, 0);
    static void read(const std::uint8_t* from, int, StoredBlock& b) {
        b.scales[0] = half_bits(from);
        b.minimums[0] = half_bits(from + 2);
        read_nibbles(from + 8, b);
        read_fifth_bits(from + 4, b);
    }
};

struct Q8_0 {  // d, 32 signed bytes
    static constexpr const char* kName = "Q8_0";
    static constexpr int kInputs = 32, kBytes = 34;
    static constexpr WeightLayout kLayout = layout_of(8, 32, false, 128);
    static void read(const std::uint8_t* from, int, StoredBlock& b) {
        b.scales[0] = half_bits(from);
        for (int i = 0; i < 32; ++i) b.codes[i] = from[2 + i] ^ 0x80;
    }
};

// The 6-bit scale and minimum of part 0..7 of a K block: twelve bytes, the upper bits of parts 4..7 at the
// top of the first eight.
void read_k_scales(const std::uint8_t* from, const std::uint8_t* s, int part, StoredBlock& b) {
    b.scales[0] =
        static_cast<std::uint32_t>(part < 4 ? s[part] & 63 : (s[part + 4] & 15) | (s[part - 4] >> 6) << 4);
    b.minimums[0] =
        static_cast<std::uint32_t>(part < 4 ? s[part + 4] & 63 : (s[part + 4] >> 4) | (s[part] >> 6) << 4);
    b.super_scale = half_bits(from);
    b.super_minimum = half_bits(from + 2) ^ 0x8000u;
}

// Code i of part 0..7 without what lies above four bits: two parts share 32 bytes, the even one the low
// nibbles.
std::uint8_t k_nibble(const std::uint8_t* bytes, int part, int i) {
    return static_cast<std::uint8_t>(bytes[part / 2 * 32 + i] >> part % 2 * 4 & 15);
}

struct Q4_K {  // d, dmin, 12 bytes of scales, 128 of nibbles
    static constexpr const char* kName = "Q4_K";
    static constexpr int kInputs = 256, kBytes = 144;
    static constexpr WeightLayout kLayout = with_super_scales(4, 32, true, 0);
    static void read(const std::uint8_t* from, int part, StoredBlock& b) {
        read_k_scales(from, from + 4, part, b);
        for (int i = 0; i < 16; ++i)
            b.codes[i] = static_cast<std::uint8_t>(k_nibble(from + 16, part, i) |
                                                   k_nibble(from + 16, part, i + 16) << 4);
    }
};

struct Q5_K {  // as Q4_K with 32 bytes of fifth bits (bit `part` of byte i) before the nibbles
    static constexpr const char* kName = "Q5_K";
    static constexpr int kInputs = 256, kBytes = 176;
    static constexpr WeightLayout kLayout = with_super_scales(8, 32, true, 0);
    static void read(const std::uint8_t* from, int part, StoredBlock& b) {
        read_k_scales(from, from + 4, part, b);
        for (int i = 0; i < 32; ++i)
            b.codes[i] =
                static_cast<std::uint8_t>(k_nibble(from + 48, part, i) | (from[16 + i] >> part & 1) << 4);
    }
};

struct Q6_K {  // 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d
    static constexpr const char* kName = "Q6_K";
    static constexpr int kInputs = 256, kBytes = 210;
    static constexpr WeightLayout kLayout = with_super_scales(8, 16, false, 32);
    static void read(const std::uint8_t* from, int part, StoredBlock& b) {
        const int half = part / 4, quarter = part % 4, shift = quarter / 2 * 4;
        const std::uint8_t* low = from + half * 64 + quarter % 2 * 32;
        const std::uint8_t* high = from + 128 + half * 32;
        for (int i = 0; i < 32; ++i)
            b.codes[i] =
                static_cast<std::uint8_t>((low[i] >> shift & 15) | (high[i] >> 2 * quarter & 3) << 4);
        for (int s = 0; s < 2; ++s) b.scales[s] = from[192 + half * 8 + quarter * 2 + s];
        b.super_scale = half_bits(from + 208);
    }
};

// Inputs 32 * part .. of a block; `index` counts them from `to` on.
template <class Format>
void pack_part(const std::uint8_t* from, int part, std::uint8_t* to, std::int64_t index, int lane) {
    StoredBlock block{};
    Format::read(from, part, block);
    put_block(block_place(to, index, Format::kLayout), lane, Format::kLayout, block);
}

// Each part by itself, so that what depends on its number is known when this is compiled: 3 times as fast.
template <class Format, int... kPart>
void pack_parts(const std::uint8_t* from, std::int64_t count, std::uint8_t* to, int lane,
                std::integer_sequence<int, kPart...>) {
    constexpr int kParts = sizeof...(kPart);
    for (std::int64_t i = 0; i < count; ++i, from += Format::kBytes)
        (pack_part<Format>(from, kPart, to, i * kParts + kPart, lane), ...);
}

template <class Format>
void pack(const std::uint8_t* from, std::int64_t count, std::uint8_t* to, int lane) {
    pack_parts<Format>(from, count, to, lane,
                       std::make_integer_sequence<int, Format::kInputs / kBlockInputs>());
}

template <class Format>
constexpr GgufBlockReader reader_of() {
    return {Format::kName, Format::kInputs, Format::kBytes, Format::kLayout, pack<Format>};
}

constexpr GgufBlockReader kReaders[] = {
    reader_of<Q4_0>(), reader_of<Q4_1>(), reader_of<Q5_0>(), reader_of<Q5_1>(),
    reader_of<Q8_0>(), reader_of<Q4_K>(), reader_of<Q5_K>(), reader_of<Q6_K>(),
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
