#include "bindings/bindings.h"

NB_MODULE(_native, m) {
    nanobind::set_leak_warnings(
        false);  // an exception that ends the program keeps objects alive: no bug of ours
    m.doc() = "pelton's native core: kernels per instruction set, a thread pool, and the runtime of plans.";
    pelton::bindings::bind_errors();
    pelton::bindings::bind_core(m);
    pelton::bindings::bind_linear(m);
    pelton::bindings::bind_runtime(m);
    pelton::bindings::bind_sampling(m);
}
