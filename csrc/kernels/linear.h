// Matrix products with packed weights: y[t, n] = sum over k of w[n, k] * x[t, k], plus bias, plus the old y.
//
// A weight is cut into panels of 16 outputs by all inputs, each panel one contiguous stream. Vector lanes
// hold outputs, never parts of a sum, and inputs are added in rising order, so a row's result is the same
// bits whatever the number of rows, the tile or the split over threads.
//
// Block-quantized panel, per 32 inputs: code vectors, then 16 scales, then 16 minimums (two sets of each for
// groups of 16 inputs). Vector j of 8-bit codes holds for each output the inputs 4j..4j+3; a vector of 4-bit
// codes holds step j in its low nibbles and step j + 4 in its high ones. With super scales, per 256 inputs:
// 16 float16 scales, 16 float16 minimums (or as many zeros), eight sets of 16 one-byte multiples of them, the
// code vectors of eight blocks; a scale is the product, which float32 holds exactly. Float panels hold 16
// outputs per input; bfloat16 ones 16 pairs of two neighbouring inputs (as the bfloat16 dot-product
// instruction wants them).
//
// Plain data only: this header is read by code of every instruction-set level.
#pragma once

#include <stdint.h>

namespace pelton {

constexpr int kPanelOutputs = 16;
constexpr int kBlockInputs = 32;
constexpr int kSuperBlocks = 8;  // blocks that share super scales
constexpr int kSuperBytes = 64;  // of the super scales and minimums of 16 outputs
constexpr int kScaleBits = 3;    // of the fraction of an activation's scale

enum class WeightKind : uint8_t { kBlock, kF32, kF16, kBF16, kPairs };

// How a weight is held. For kBlock: value = scale * (code - offset) + minimum. For kPairs, see
// weight_pairs.h, only `segment` and has_minimum count.
struct WeightLayout {
    WeightKind kind = WeightKind::kF32;
    uint8_t bits = 0;           // 4 or 8
    uint8_t group = 0;          // inputs that share a scale: 16 or 32
    bool half_scales = false;   // scales (and minimums) are float16, else float32
    bool super_scales = false;  // they are float16 times an integer in -128..127; half_scales is false
    bool has_minimum = false;   // then offset is 0
    bool has_table = false;     // 4-bit indices into `table`
    int16_t offset = 0;
    uint8_t table[16] = {};
    uint8_t segment = 0;  // pairs of blocks whose activations share a unit, 1 to kMostSegmentPairs
};

struct WeightView {
    const uint8_t* data;  // [panels][panel_bytes], 64-byte aligned
    int64_t outputs, inputs;
    int64_t panel_bytes;
    int64_t block_bytes;  // of 32 inputs of a panel, of 256 with super scales; kBlock only
    WeightLayout layout;
};

// 32 inputs of one row: x = scale * codes, to within scale / 2. The halves share a scale, or, in fine blocks,
// have one each. Of a scale's fraction only the highest kScaleBits bits are not 0, so that a weight's scale
// can have its products with all fractions ready. Magnitudes below 2^-80 become 0; one of 2^100 or more, or a
// NaN, makes scale -infinity and codes 0, whose products are NaN.
struct ActivationBlock {
    int8_t codes[kBlockInputs];  // -127..127
    float scales[2];             // largest magnitude / 127 or a little more, of codes 0..15 and 16..31
    float scaled_sum;            // scale * sum of codes
    int16_t half_sums[2];        // sums of codes 0..15 and 16..31
};
static_assert(sizeof(ActivationBlock) == 48, "rows of blocks are addressed by this size");

// Two blocks, whose sums of products share a register. Pairs share a unit; the more of them, the less often
// are sums made floats, and the less exact are scales.
constexpr int kPairInputs = 2 * kBlockInputs, kMostSegmentPairs = 9;
constexpr int kPairCodeBytes = 512, kPairSetBytes = 64;  // of 16 outputs; scales are a set, and minimums
constexpr int pair_bytes(bool has_minimum) { return kPairCodeBytes + (has_minimum ? 2 : 1) * kPairSetBytes; }
constexpr int kCodeOffset = 8;         // of a 4-bit weight's code
constexpr int kPairScaleBits = 13;     // the largest scale of a segment is at most 2^13, and more than 2^12
constexpr int kScaleProductBits = 15;  // dropped from a weight's scale times an activation's
constexpr int kPairSumBits = 10;       // dropped from a scale times a sum of codes

// 64 inputs of one row for weights in pairs: x = unit * scale * code, to within half of that. A scale belongs
// to 32 inputs (the first two count), in fine pairs to 16. What is missing at the end of a row is 0. In a
// segment with a NaN or a magnitude of 2^100 or more the unit is NaN and codes are 0.
struct ActivationPair {
    int8_t codes[kPairInputs];  // -127..127
    int16_t scales[4];          // 0..2^13; of two that go together here and below, block 2 comes first
    int16_t sums[2];            // of each block: scale times sum of codes, without its last kPairSumBits
    int32_t starts[2];          // of both blocks' sums, or of those of their halves: see start_of_parts
    float unit;                 // a power of two, the segment's
};
static_assert(sizeof(ActivationPair) == 88, "rows of pairs are addressed by this size");

// What the tiles of many rows share of a slice of weights beside its bytes: nothing, unpacked codes, or
// multiples of scales.
enum class Prepared : uint8_t { kNothing, kCodes, kScales };

// How products read weights, as suits the processor; changes no bit.
struct WeightReading {
    int64_t ahead = 0;  // bytes of a panel that one tile of rows asks for ahead; 0: the kernel's own choice
    bool keep = false;  // what one row reads may stay in the caches
    int panels = 0;     // 1, 2 or 4 that one row reads side by side, few rows 1 or 2; 0: as many as a tile
    Prepared prepared = Prepared::kNothing;  // of many rows
};

// Memory that is read after a product: each tile of many rows asks for one of `runs`, `bytes` long, which lie
// `shift` bytes on from where they point to.
struct alignas(64) ReadAhead {
    const uint8_t* const* runs = nullptr;
    int64_t count = 0, bytes = 0, shift = 0, next = 0;
};

struct LinearCall {
    WeightView weight;
    const ActivationBlock* blocks;  // [rows, inputs / 32] for kBlock weights
    const float* inputs;            // [rows, input_stride] for float weights
    int64_t input_stride;
    float* outputs;  // [rows, output_stride]
    int64_t output_stride;
    const float* bias;    // [outputs] or null
    bool add_to_outputs;  // outputs += result instead of outputs = result
    bool fine;            // `blocks` are fine
    WeightReading reading;
    bool stream = false;            // outputs go past the caches
    const uint8_t* then = nullptr;  // panels of the same size that are read after the call's, if known
    ReadAhead* ahead = nullptr;     // of the thread that runs the call
    const ActivationPair* pairs = nullptr;  // [rows, pairs_of(inputs)] for kPairs weights
};

static constexpr int64_t pairs_of(int64_t inputs) { return (inputs + kPairInputs - 1) / kPairInputs; }

// What one thread computes: a rectangle of panels by rows.
struct LinearRange {
    int64_t panel_begin, panel_end, row_begin, row_end;
};

// Rows of x, [rows, stride], of which `width` numbers, a multiple of 32, become pairs [rows, pair_stride].
// `segment` pairs share a unit.
struct PairRounding {
    const float* x;
    int64_t stride, width, rows;
    ActivationPair* pairs;
    int64_t pair_stride;
    int segment;
    bool fine;
};

struct LinearKernels {
    void (*linear)(const LinearCall& call, const LinearRange& range);
    // Blocks begin..end of the flattened [rows, width / 32]; x is [rows, stride], width a multiple of 32.
    // Fine blocks halve the error and cost the product of many rows up to a fifth of its speed.
    void (*quantize)(const float* x, int64_t stride, int64_t width, bool fine, ActivationBlock* blocks,
                     int64_t begin, int64_t end);
    void (*quantize_pairs)(const PairRounding& call);
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
void linear(const LinearCall& call, const LinearRange& range);
void linear_u4(const LinearCall& call, const LinearRange& range);
void linear_u4_table(const LinearCall& call, const LinearRange& range);
void linear_u8(const LinearCall& call, const LinearRange& range);
void linear_float(const LinearCall& call, const LinearRange& range);
void linear_pairs(const LinearCall& call, const LinearRange& range);
void linear_bf16(const LinearCall& call, const LinearRange& range);  // of levels with the instruction only
void quantize(const float* x, int64_t stride, int64_t width, bool fine, ActivationBlock* blocks,
              int64_t begin, int64_t end);
void quantize_pairs(const PairRounding& call);
}  // namespace PELTON_ISA
#endif

}  // namespace pelton
