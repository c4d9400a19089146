// Readers of the block formats of GGUF files (layouts: ggml's public block definitions) into panels.
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
    // Blocks from..from + count of one output into the lane of a panel whose bytes for them begin at `to`.
    void (*pack)(const std::uint8_t* from, std::int64_t count, std::uint8_t* to, int lane);
};

// Throws Error(kUnsupported) for a name without a native reader.
const GgufBlockReader& gguf_block_reader(const std::string& format);

bool same_layout(const WeightLayout& a, const WeightLayout& b) noexcept;

}  // namespace pelton
