#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "core/cpu_features.h"
#include "core/errors.h"
#include "core/isa_level.h"
#include "core/machine_probe.h"
#include "core/thread_pool.h"

namespace pelton::bindings {

namespace {

const char* python_name(ErrorKind kind) {
    switch (kind) {
        case ErrorKind::kUnsupported:
            return "KernelUnsupportedError";
        case ErrorKind::kConfig:
            return "ConfigError";
        case ErrorKind::kPlan:
            return "PlanError";
        case ErrorKind::kMemory:
            return "MemoryBudgetError";
        case ErrorKind::kInvalidArgument:
            break;
    }
    return nullptr;
}

void translate(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const Error& error) {
        const char* name = python_name(error.kind());
        if (name == nullptr) {
            PyErr_SetString(PyExc_ValueError, error.what());
        } else {
            PyErr_SetString(nb::module_::import_("pelton.errors").attr(name).ptr(), error.what());
        }
    }
}

std::size_t sixteens(std::size_t size) {
    require(size % 16 == 0, "vector functions take a multiple of 16 elements");
    return size;
}

template <typename From, typename To>
Array<To, 1> map_array(const Array<const From, 1>& x, void (*function)(const From*, To*, std::int64_t)) {
    const std::size_t size = sixteens(x.size());
    To* y = new To[size];
    function(x.data(), y, static_cast<std::int64_t>(size));
    return owned_array<To, 1>(y, {size});
}

// The vector functions that kernels are built of, over arrays of a multiple of 16 elements; for tests.
void bind_vector_functions(nb::module_& m) {
    using namespace nb::literals;
    m.def(
        "vector_exp",
        [](Array<const float, 1> x, const std::string& isa) {
            return map_array(x, kernels_for(isa).probe.exp);
        },
        "x"_a.noconvert(), "isa"_a = "");
    m.def(
        "vector_coarse_exp2",
        [](Array<const float, 1> x, const std::string& isa) {
            return map_array(x, kernels_for(isa).probe.coarse_exp2);
        },
        "x"_a.noconvert(), "isa"_a = "");
    m.def(
        "vector_to_f16",
        [](Array<const float, 1> x, const std::string& isa) {
            return map_array(x, kernels_for(isa).probe.store_f16);
        },
        "x"_a.noconvert(), "isa"_a = "");
    m.def(
        "vector_to_bf16",
        [](Array<const float, 1> x, const std::string& isa) {
            return map_array(x, kernels_for(isa).probe.store_bf16);
        },
        "x"_a.noconvert(), "isa"_a = "");
    m.def(
        "vector_from_f16",
        [](Array<const std::uint16_t, 1> x, const std::string& isa) {
            return map_array(x, kernels_for(isa).probe.load_f16);
        },
        "x"_a.noconvert(), "isa"_a = "");
    m.def(
        "vector_reduce",
        [](Array<const float, 1> x, const std::string& isa) {
            require(x.size() == 16, "a vector has 16 elements");
            float sum_and_max[2];
            kernels_for(isa).probe.reduce(x.data(), sum_and_max);
            return nb::make_tuple(sum_and_max[0], sum_and_max[1]);
        },
        "x"_a.noconvert(), "isa"_a = "");
}

void bind_machine(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<CpuFeatures>(m, "CpuFeatures")
        .def_ro("brand", &CpuFeatures::brand)
        .def_ro("flags", &CpuFeatures::flags)
        .def_ro("num_processors", &CpuFeatures::num_processors)
        .def_ro("l1_bytes", &CpuFeatures::l1_bytes)
        .def_ro("l2_bytes", &CpuFeatures::l2_bytes)
        .def_ro("l3_bytes", &CpuFeatures::l3_bytes);
    m.def("cpu_features", &detect_cpu_features);
    m.def("isa_levels", &available_levels);
    m.def(
        "resolve_isa", [](const std::string& isa) { return std::string(kernels_for(isa).level); },
        "isa"_a = "");
    m.def(
        "read_bandwidth",
        [](ThreadPool& pool, std::int64_t num_bytes, int repeats, const std::string& isa) {
            return read_bandwidth(kernels_for(isa), pool, num_bytes, repeats);
        },
        "pool"_a, "num_bytes"_a, "repeats"_a = 5, "isa"_a = "", nb::call_guard<nb::gil_scoped_release>());
    m.def(
        "arithmetic_peak",
        [](ThreadPool& pool, const std::string& kind, double seconds, const std::string& isa) {
            return arithmetic_peak(kernels_for(isa), pool, kind, seconds);
        },
        "pool"_a, "kind"_a, "seconds"_a = 0.2, "isa"_a = "", nb::call_guard<nb::gil_scoped_release>());
    m.def("barrier_seconds", &barrier_seconds, "pool"_a, "rounds"_a = 10000,
          nb::call_guard<nb::gil_scoped_release>());
}

// For tests: `jobs` runs of `barriers` barriers that check that no thread passes one early; thread `failing`
// (-1: none) throws at the barrier `fail_at` of every job. Returns the number of jobs that rethrew.
int exercise_pool(ThreadPool& pool, int jobs, int barriers, int failing, int fail_at) {
    int rethrown = 0;
    std::vector<int> progress(static_cast<std::size_t>(pool.num_threads()));
    for (int job = 0; job < jobs; ++job) {
        std::fill(progress.begin(), progress.end(), 0);
        try {
            pool.run([&](int thread_id) {
                for (int step = 1; step <= barriers; ++step) {
                    if (thread_id == failing && step == fail_at)
                        throw Error(ErrorKind::kInvalidArgument, "thread failed as asked");
                    progress[static_cast<std::size_t>(thread_id)] = step;
                    pool.barrier();
                    for (const int other : progress)
                        if (other != step) throw Error(ErrorKind::kPlan, "a thread passed a barrier early");
                    pool.barrier();
                }
            });
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::kInvalidArgument) throw;
            ++rethrown;
        }
    }
    return rethrown;
}

void bind_thread_pool(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<IdleWork>(m, "IdleWork");
    nb::class_<ThreadPool>(m, "ThreadPool")
        .def(nb::init<int, std::shared_ptr<IdleWork>>(), "num_threads"_a, "idle"_a.none() = nb::none(),
             nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("num_threads", &ThreadPool::num_threads);
    m.def("exercise_pool", &exercise_pool, "pool"_a, "jobs"_a, "barriers"_a, "failing"_a = -1,
          "fail_at"_a = 0, nb::call_guard<nb::gil_scoped_release>());
    m.def(
        "run_inside_run", [](ThreadPool& pool) { pool.run([&](int) { pool.run([](int) {}); }); }, "pool"_a,
        nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

void bind_errors() { nb::register_exception_translator(translate, nullptr); }

void bind_core(nb::module_& m) {
    bind_thread_pool(m);
    bind_machine(m);
    bind_vector_functions(m);
}

}  // namespace pelton::bindings
