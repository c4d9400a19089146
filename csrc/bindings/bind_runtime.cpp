#include "bindings/bindings.h"

namespace pelton::bindings {

void bind_runtime(nb::module_&) {}

}  // namespace pelton::bindings
