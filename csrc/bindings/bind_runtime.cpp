#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>

#include "bindings/bindings.h"
#include "core/errors.h"
#include "core/isa_level.h"
#include "runtime/program.h"

namespace pelton::bindings {

namespace {

using namespace nb::literals;
using Integers = Array<const std::int32_t, 1>;
using KvArray = nb::ndarray<nb::numpy, nb::ndim<5>, nb::c_contig, nb::device::cpu>;

KvFormat kv_format(nb::dlpack::dtype type) {
    const auto is = [&](nb::dlpack::dtype_code code, int bits) {
        return type.code == static_cast<std::uint8_t>(code) && type.bits == bits && type.lanes == 1;
    };
    if (is(nb::dlpack::dtype_code::Float, 32)) return KvFormat::kFloat32;
    if (is(nb::dlpack::dtype_code::Float, 16)) return KvFormat::kFloat16;
    if (is(nb::dlpack::dtype_code::UInt, 8)) return KvFormat::kInt8;
    require(is(nb::dlpack::dtype_code::UInt, 32),
            "keys and values are float32, float16, pairs of bfloat16 or bytes with scales");
    return KvFormat::kBFloat16;
}

// An arena's two arrays; keys [blocks, layers, heads, head_dim, 32], values with the last two swapped. Pairs
// of bfloat16 are uint32: keys [.., head_dim / 2, 32], values [.., 16, head_dim]. Of int8 both are [..,
// head_dim + 4, 32] bytes, whose last four rows are scales.
KvArrays kv_arrays(const KvArray& keys, const KvArray& values) {
    const auto size = [](const KvArray& array, int axis) {
        return static_cast<std::int64_t>(array.shape(axis));
    };
    require(keys.dtype() == values.dtype(), "keys and values differ in format");
    const KvFormat format = kv_format(keys.dtype());
    const std::int64_t run = run_of(format),
                       dim = format == KvFormat::kInt8 ? size(keys, 3) - 4 : size(values, 4);
    for (int axis = 0; axis < 3; ++axis)
        require(size(keys, axis) == size(values, axis), "keys and values differ in shape");
    if (format == KvFormat::kInt8)
        require(size(keys, 4) == kKvBlock && size(values, 4) == kKvBlock &&
                    size(keys, 3) == size(values, 3) && dim > 0 && dim % 16 == 0 && dim <= kMostByteElements,
                "bytes must be [blocks, layers, heads, head_dim + 4, 32], of heads of 16 to 1024 elements");
    else
        require(size(keys, 4) == kKvBlock && size(values, 3) * run == kKvBlock && size(keys, 3) * run == dim,
                "keys must be [blocks, layers, heads, head_dim, 32], values [blocks, layers, heads, 32, "
                "head_dim]");
    require(keys.size() > 0, "an arena has blocks, layers and heads with elements");
    return {static_cast<std::uint8_t*>(keys.data()),
            static_cast<std::uint8_t*>(values.data()),
            size(keys, 0),
            size(keys, 1),
            size(keys, 2),
            dim,
            format};
}

void begin(Program& program, Integers tokens, Integers positions, Integers slots, Integers parents,
           Integers span_start, Integers context, Integers is_tree, Array<const std::int32_t, 2> tables,
           const std::vector<Integers>& row_sets, const KvArray& keys, const KvArray& values,
           bool only_greatest) {
    const std::size_t rows = tokens.size(), spans = context.size();
    require(positions.size() == rows && slots.size() == rows && parents.size() == rows,
            "tokens, positions, slots and parents must have one entry a row");
    require(span_start.size() == spans + 1 && is_tree.size() == spans && tables.shape(0) == spans,
            "span_start, is_tree and tables do not fit the number of spans");
    const KvArrays kv = kv_arrays(keys, values);
    std::vector<RowSetView> sets;
    for (const Integers& set : row_sets) sets.push_back({set.data(), static_cast<std::int64_t>(set.size())});
    const BatchArrays arrays{static_cast<std::int64_t>(rows),
                             static_cast<std::int64_t>(spans),
                             static_cast<std::int64_t>(tables.shape(1)),
                             tokens.data(),
                             positions.data(),
                             slots.data(),
                             parents.data(),
                             span_start.data(),
                             context.data(),
                             is_tree.data(),
                             tables.data()};
    auto arena = std::make_shared<const std::pair<KvArray, KvArray>>(keys, values);
    const std::shared_ptr<const void> before = program.workspace()->arena();  // let go with the GIL held
    nb::gil_scoped_release release;
    program.begin(arrays, sets, kv, std::move(arena), only_greatest);
}

std::vector<std::vector<std::int32_t>> feed_back(Program& program, std::int64_t passes,
                                                 const std::vector<std::int32_t>& ends,
                                                 const std::vector<std::int64_t>& rows,
                                                 const std::vector<Integers>& texts, std::int64_t repeated) {
    require(rows.size() == texts.size(), "each text that is watched belongs to a row");
    WatchedTexts watched{{}, repeated};
    for (std::size_t i = 0; i < rows.size(); ++i)
        watched.texts.push_back({rows[i], {texts[i].data(), texts[i].data() + texts[i].size()}});
    nb::gil_scoped_release release;
    return program.feed_back(passes, ends, std::move(watched));
}

Array<float, 2> copy_of(const float* from, std::int64_t rows, std::int64_t width) {
    const std::size_t count = static_cast<std::size_t>(rows * width);
    auto* data = new float[count];
    std::copy(from, from + count, data);
    return owned_array<float, 2>(data, {static_cast<std::size_t>(rows), static_cast<std::size_t>(width)});
}

Array<float, 2> read(const Program& program, int value) {
    return copy_of(program.read(value), program.rows_of(value), program.width_of(value));
}

// The value itself, not a copy; overwritten by the next pass, but never freed under the array.
Array<float, 2> view(const Program& program, int value) {
    using Holder = std::shared_ptr<AlignedBuffer>;
    auto* holder = new Holder(program.memory_of(value));
    nb::capsule owner(holder, [](void* p) noexcept { delete static_cast<Holder*>(p); });
    return Array<float, 2>(
        const_cast<float*>(program.read(value)),
        {static_cast<std::size_t>(program.rows_of(value)), static_cast<std::size_t>(program.width_of(value))},
        owner);
}

void write(Program& program, int value, Array<const float, 2> array) {
    require(static_cast<std::int64_t>(array.shape(0)) == program.rows_of(value) &&
                static_cast<std::int64_t>(array.shape(1)) == program.width_of(value),
            "the array does not have the value's shape");
    program.write(value, array.data());
}

Array<std::int64_t, 3> trace(const Program& program) {
    const std::vector<std::int64_t>& from = program.trace();
    auto* data = new std::int64_t[from.size()];
    std::copy(from.begin(), from.end(), data);
    const std::size_t instructions = static_cast<std::size_t>(program.num_instructions());
    const std::size_t threads = instructions == 0 ? 0 : from.size() / (2 * instructions);
    return owned_array<std::int64_t, 3>(data, {threads, instructions, 2});
}

// Rows (thread, instruction, start, end, wait).
Array<std::int64_t, 2> events(const Program& program) {
    std::size_t count = 0;
    for (const std::vector<TraceEvent>& thread : program.events()) count += thread.size();
    auto* data = new std::int64_t[count * 5];
    std::int64_t* row = data;
    for (std::size_t thread = 0; thread < program.events().size(); ++thread)
        for (const TraceEvent& event : program.events()[thread]) {
            const std::int64_t values[] = {static_cast<std::int64_t>(thread), event.instruction, event.start,
                                           event.end, event.wait};
            row = std::copy(values, values + 5, row);
        }
    return owned_array<std::int64_t, 2>(data, {count, 5});
}

// [(name, barrier before when rows are shared out, when replicated)] of every instruction.
nb::list describe(const Program& program) {
    nb::list rows;
    for (std::int64_t i = 0; i < program.num_instructions(); ++i)
        rows.append(nb::make_tuple(program.instruction(i).name(), program.barrier_before(i, false),
                                   program.barrier_before(i, true)));
    return rows;
}

}  // namespace

void bind_runtime(nb::module_& m) {
    nb::class_<RopeSpec>(m, "RopeSpec")
        .def(
            "__init__",
            [](RopeSpec* spec, std::int64_t head_dim, std::vector<double> frequencies, double magnitude,
               bool interleaved) {
                require(head_dim > 0 && 2 * static_cast<std::int64_t>(frequencies.size()) <= head_dim,
                        "rope rotates more than a head");
                new (spec) RopeSpec{head_dim, std::move(frequencies), magnitude, interleaved};
            },
            "head_dim"_a, "frequencies"_a, "magnitude"_a, "interleaved"_a);
    nb::class_<PageReserve, IdleWork>(m, "PageReserve").def_prop_ro("num_bytes", &PageReserve::num_bytes);
    nb::class_<Workspace>(m, "Workspace")
        .def(nb::init<>())
        .def_prop_ro("num_bytes", &Workspace::num_bytes)
        .def_prop_ro("reserve", &Workspace::reserve);
    nb::class_<Program> program(m, "Program");
    program.def(
        "__init__",
        [](Program* p, std::shared_ptr<ThreadPool> pool, std::shared_ptr<Workspace> workspace,
           const std::string& isa) {
            new (p) Program(std::move(pool), kernels_for(isa), std::move(workspace));
        },
        "pool"_a, "workspace"_a, "isa"_a);
    bind_building(program);
    program.def_prop_ro("num_instructions", &Program::num_instructions)
        .def("describe", &describe)
        .def("begin", &begin, "tokens"_a.noconvert(), "positions"_a.noconvert(), "slots"_a.noconvert(),
             "parents"_a.noconvert(), "span_start"_a.noconvert(), "context"_a.noconvert(),
             "is_tree"_a.noconvert(), "tables"_a.noconvert(), "row_sets"_a, "keys"_a.noconvert(),
             "values"_a.noconvert(), "only_greatest"_a = false)
        .def("run", &Program::run, "start"_a, "end"_a, nb::call_guard<nb::gil_scoped_release>())
        .def("feed_back", &feed_back, "passes"_a, "ends"_a, "rows"_a, "texts"_a, "repeated"_a)
        .def("read", &read, "value"_a)
        .def("view", &view, "value"_a)
        .def("write", &write, "value"_a, "array"_a.noconvert())
        .def(
            "mass",
            [](const Program& p, std::int64_t index) {
                const std::vector<float>& mass = p.mass(index);
                const std::int64_t spans = p.num_spans();
                return copy_of(mass.data(), spans, static_cast<std::int64_t>(mass.size()) / spans);
            },
            "index"_a)
        .def("greatest", &Program::greatest)
        .def("set_trace", &Program::set_trace, "on"_a)
        .def("trace", &trace)
        .def("events", &events)
        .def(
            "set_readings",
            [](Program& p, const WeightReading& one, const WeightReading& few, const WeightReading& many) {
                p.set_readings({one, few, many});
            },
            "one"_a, "few"_a, "many"_a)
        .def("set_share_prefixes", &Program::set_share_prefixes, "on"_a)
        .def_prop_ro("saved_chunks", &Program::saved_chunks);
}

}  // namespace pelton::bindings
