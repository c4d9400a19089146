// Choosing the instruction-set level at run time.
#pragma once

#include <string>
#include <vector>

#include "kernels/table.h"

namespace pelton {

// Levels this build has code for and this processor can run, slowest first; never empty.
std::vector<std::string> available_levels();

// The kernels of a level by name; "" means what PELTON_ISA names, or else the fastest available. Throws
// Error(kConfig) for a name that is not available, listing those that are.
const KernelTable& kernels_for(const std::string& level);

}  // namespace pelton
