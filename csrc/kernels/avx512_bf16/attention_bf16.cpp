// Attention over bfloat16 keys and values by the bfloat16 dot-product instruction.
#include "kernels/attention_chunk.h"

namespace pelton::PELTON_ISA {

void attend_chunk(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
                  float* states) {
    chunk_of<BrainKv>(tile, chunk, scores, state_size, states);
}

void add_mass(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
              const float* states, float* mass) {
    mass_of<BrainKv>(tile, chunk, scores, state_size, states, mass);
}

}  // namespace pelton::PELTON_ISA
