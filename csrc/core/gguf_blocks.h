// Readers of the block formats of GGUF files (layouts: ggml's public block definitions), 32 inputs at a time.
#pragma once

#include <cstdint>
#include <string>

#include "core/panel_block.h"

namespace pelton {

struct GgufBlockReader {
    const char* name;
    std::int64_t block_inputs;
    std::int64_t block_bytes;
    WeightLayout layout;
    // Inputs 32 * part .. of a block; the minimum is what is added, so formats that subtract it are negated.
    void (*read)(const std::uint8_t* block, int part, BlockValues& values);
};

// Throws Error(kUnsupported) for a name without a native reader.
const GgufBlockReader& gguf_block_reader(const std::string& format);

bool same_layout(const WeightLayout& a, const WeightLayout& b) noexcept;

}  // namespace pelton
