// Shared by the binding files: one bind function a core header, array types, nothing else.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace pelton {
class Program;
}

namespace pelton::bindings {

namespace nb = nanobind;

// NumPy arrays without gaps; never converted, so a wrong type is a TypeError instead of a silent copy.
template <typename Scalar, int kRank>
using Array = nb::ndarray<nb::numpy, Scalar, nb::ndim<kRank>, nb::c_contig, nb::device::cpu>;
// The last axis without gaps; rows may be apart.
template <typename Scalar>
using Rows = nb::ndarray<nb::numpy, Scalar, nb::ndim<2>, nb::device::cpu>;

// A fresh NumPy array that owns `data` (from new[]).
template <typename Scalar, int kRank>
Array<Scalar, kRank> owned_array(Scalar* data, std::initializer_list<std::size_t> shape) {
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<Scalar*>(p); });
    return Array<Scalar, kRank>(data, shape, owner);
}

void bind_errors();
void bind_core(nb::module_& m);
void bind_linear(nb::module_& m);
void bind_runtime(nb::module_& m);
void bind_building(nb::class_<Program>& program);
void bind_sampling(nb::module_& m);

}  // namespace pelton::bindings
