#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "bindings/bindings.h"
#include "core/errors.h"
#include "core/isa_level.h"
#include "runtime/expert_instruction.h"
#include "runtime/program.h"
#include "runtime/screened_linear.h"

namespace pelton::bindings {

namespace {

using namespace nb::literals;
using Integers = Array<const std::int32_t, 1>;
using Floats = std::optional<Array<const float, 1>>;
using KvArray = nb::ndarray<nb::numpy, nb::ndim<5>, nb::c_contig, nb::device::cpu>;

Vector vector_of(const Floats& array) {
    return array ? Vector(array->data(), array->data() + array->size()) : Vector();
}

Activation activation_of(const std::string& name) {
    if (name == "silu") return Activation::kSilu;
    if (name == "gelu_tanh") return Activation::kGeluTanh;
    if (name == "gelu_erf") return Activation::kGeluErf;
    if (name == "relu") return Activation::kRelu;
    throw Error(ErrorKind::kUnsupported, "there is no activation " + name);
}

Elementwise elementwise_of(const std::string& name) {
    constexpr const char* kNames[] = {"add", "mul", "scale", "soft_cap", "activate"};
    for (int i = 0; i < 5; ++i)
        if (name == kNames[i]) return static_cast<Elementwise>(i);
    throw Error(ErrorKind::kUnsupported, "there is no elementwise operation " + name);
}

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

void add_linear(Program& program, int x, int blocks, const nb::list& parts, int residual, bool fine) {
    std::vector<LinearPart> list;
    for (const nb::handle part : parts) {
        const auto weight = nb::cast<std::shared_ptr<PackedWeight>>(part[nb::int_(0)]);
        const int output = nb::cast<int>(part[nb::int_(2)]);
        const nb::object bias = part[nb::int_(1)];
        Vector vector;
        require(weight != nullptr, "linear: a weight is missing");
        if (!bias.is_none()) vector = vector_of(nb::cast<Array<const float, 1>>(bias));
        list.push_back({weight, std::move(vector), output});
    }
    require(!list.empty(), "a linear has a weight");
    program.add(std::make_unique<LinearInstruction>(LinearInput{x, blocks, fine}, std::move(list), residual));
}

void add_attend(Program& program, int q, int k, int v, int output, std::int64_t kv_layer, std::int64_t heads,
                std::int64_t kv_heads, std::int64_t head_dim, int row_set, float scale, std::int64_t window,
                float cap, const std::optional<RopeSpec>& query_rope, const std::optional<RopeSpec>& key_rope,
                bool wants_mass) {
    AttendSpec spec{kv_layer, scale, cap, nullptr, nullptr, wants_mass};
    if (query_rope) spec.query_rope = program.rope_table(*query_rope);
    if (key_rope) spec.key_rope = program.rope_table(*key_rope);
    program.add_attend(q, k, v, output, std::move(spec), {row_set, heads, kv_heads, head_dim, window});
}

void add_experts(Program& program, int x, int blocks, int routed, int output,
                 std::vector<std::shared_ptr<PackedWeight>> gate,
                 std::vector<std::shared_ptr<PackedWeight>> up,
                 std::vector<std::shared_ptr<PackedWeight>> down, const std::vector<int>& buffers,
                 const std::string& activation, std::int64_t top_k) {
    require(buffers.size() == 5, "experts need five scratch values");
    ExpertWeights weights;
    weights.gate.assign(gate.begin(), gate.end());
    weights.up.assign(up.begin(), up.end());
    weights.down.assign(down.begin(), down.end());
    program.add(std::make_unique<ExpertInstruction>(
        LinearInput{x, blocks}, routed, output, std::move(weights),
        ExpertBuffers{buffers[0], buffers[1], buffers[2], buffers[3], buffers[4]}, activation_of(activation),
        top_k));
}

void bind_building(nb::class_<Program>& program) {
    program.def("value", &Program::add_value, "width"_a, "row_set"_a)
        .def(
            "embed",
            [](Program& p, int y, std::shared_ptr<PackedWeight> table, float scale, bool by_position) {
                p.add(std::make_unique<EmbedInstruction>(y, std::move(table), scale, by_position));
            },
            "y"_a, "table"_a, "scale"_a, "by_position"_a)
        .def(
            "norm",
            [](Program& p, int x, int y, Floats weight, Floats bias, std::int64_t group, float eps,
               bool centred) {
                p.add(std::make_unique<NormInstruction>(
                    x, y, NormSpec{vector_of(weight), vector_of(bias), group, eps, centred}));
            },
            "x"_a, "y"_a, "weight"_a.none(), "bias"_a.none(), "group"_a, "eps"_a, "centred"_a)
        .def(
            "elementwise",
            [](Program& p, const std::string& kind, int a, int b, int y, float number,
               const std::string& activation) {
                p.add(std::make_unique<ElementwiseInstruction>(elementwise_of(kind), a, b, y, number,
                                                               activation_of(activation)));
            },
            "kind"_a, "a"_a, "b"_a, "y"_a, "number"_a = 0.0f, "activation"_a = "silu")
        .def(
            "rope",
            [](Program& p, int x, int y, const RopeSpec& spec) {
                p.add(std::make_unique<RopeInstruction>(x, y, p.rope_table(spec)));
            },
            "x"_a, "y"_a, "spec"_a)
        .def(
            "quantize",
            [](Program& p, int x, int y, bool fine) {
                p.add(std::make_unique<QuantizeInstruction>(x, y, fine));
            },
            "x"_a, "y"_a, "fine"_a)
        .def(
            "select", [](Program& p, int x, int y) { p.add(std::make_unique<SelectInstruction>(x, y)); },
            "x"_a, "y"_a)
        .def(
            "scatter",
            [](Program& p, int whole, int part, int y) {
                p.add(std::make_unique<ScatterInstruction>(whole, part, y));
            },
            "whole"_a, "part"_a, "y"_a)
        .def(
            "route",
            [](Program& p, int x, int y, std::int64_t top_k, bool normalize) {
                p.add(std::make_unique<RouteInstruction>(x, y, top_k, normalize));
            },
            "x"_a, "y"_a, "top_k"_a, "normalize"_a)
        .def("linear", &add_linear, "x"_a, "blocks"_a, "parts"_a, "residual"_a, "fine"_a)
        .def(
            "screened_linear",
            [](Program& p, int x, int blocks, std::shared_ptr<PackedWeight> weight, int output, bool fine,
               std::shared_ptr<HeadScreen> screen) {
                require(weight != nullptr && screen != nullptr && weight.get() == &screen->head(),
                        "a screen belongs to its head");
                p.add_head(std::make_unique<ScreenedLinearInstruction>(
                    LinearInput{x, blocks, fine}, std::move(weight), output, std::move(screen)));
            },
            "x"_a, "blocks"_a, "weight"_a, "y"_a, "fine"_a, "screen"_a)
        .def(
            "gated_linear",
            [](Program& p, int x, int blocks, std::shared_ptr<PackedWeight> gate,
               std::shared_ptr<PackedWeight> up, const std::string& activation, int y, int quantized) {
                p.add(std::make_unique<GatedLinearInstruction>(LinearInput{x, blocks}, std::move(gate),
                                                               std::move(up), activation_of(activation), y,
                                                               quantized));
            },
            "x"_a, "blocks"_a, "gate"_a, "up"_a, "activation"_a, "y"_a, "quantized"_a)
        .def("experts", &add_experts, "x"_a, "blocks"_a, "routed"_a, "y"_a, "gate"_a, "up"_a, "down"_a,
             "buffers"_a, "activation"_a, "top_k"_a)
        .def("attend", &add_attend, "q"_a, "k"_a, "v"_a, "y"_a, "kv_layer"_a, "heads"_a, "kv_heads"_a,
             "head_dim"_a, "row_set"_a, "scale"_a, "window"_a, "cap"_a, "query_rope"_a.none(),
             "key_rope"_a.none(), "wants_mass"_a)
        .def("finish", &Program::finish, "keep"_a);
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
        .def("feed_back", &Program::feed_back, "passes"_a, "ends"_a, nb::call_guard<nb::gil_scoped_release>())
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
