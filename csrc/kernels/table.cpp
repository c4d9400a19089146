#include "kernels/table.h"

#define PELTON_TEXT_OF(x) #x
#define PELTON_TEXT(x) PELTON_TEXT_OF(x)

namespace pelton::PELTON_ISA {

const KernelTable& kernels() noexcept {
    static constexpr KernelTable kTable = {
        PELTON_TEXT(PELTON_ISA),
        {linear, quantize, quantize_pairs},
        {probe_exp, probe_coarse_exp2, probe_store_f16, probe_store_bf16, probe_load_f16, probe_reduce,
         probe_int8_peak, probe_bf16_peak, probe_f32_peak, probe_read},
        {rms_norm, layer_norm},
        {add_arrays, mul_arrays, scale_array, soft_cap_array, activate_array, gate_arrays, accumulate_array},
        {rotate},
        {route},
        {attend_chunk, merge_states, finish_state, add_mass, round_queries, store_kv},
        {most_likely, exceeds, scale_logits, logits_reaching, weigh_logits},
    };
    return kTable;
}

}  // namespace pelton::PELTON_ISA
