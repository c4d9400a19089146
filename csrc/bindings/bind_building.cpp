// What builds a program: its values and instructions, until finish.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "bindings/bindings.h"
#include "core/errors.h"
#include "runtime/expert_instruction.h"
#include "runtime/program.h"
#include "runtime/screened_linear.h"

namespace pelton::bindings {

namespace {

using namespace nb::literals;
using Floats = std::optional<Array<const float, 1>>;

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

}  // namespace

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
            [](Program& p, int x, int y, bool fine, int segment) {
                p.add(std::make_unique<QuantizeInstruction>(x, y, fine, segment));
            },
            "x"_a, "y"_a, "fine"_a, "segment"_a = 0)
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
               std::shared_ptr<PackedWeight> up, const std::string& activation, int y, int quantized,
               int segment) {
                p.add(std::make_unique<GatedLinearInstruction>(LinearInput{x, blocks}, std::move(gate),
                                                               std::move(up), activation_of(activation), y,
                                                               quantized, segment));
            },
            "x"_a, "blocks"_a, "gate"_a, "up"_a, "activation"_a, "y"_a, "quantized"_a, "segment"_a = 0)
        .def("experts", &add_experts, "x"_a, "blocks"_a, "routed"_a, "y"_a, "gate"_a, "up"_a, "down"_a,
             "buffers"_a, "activation"_a, "top_k"_a)
        .def("attend", &add_attend, "q"_a, "k"_a, "v"_a, "y"_a, "kv_layer"_a, "heads"_a, "kv_heads"_a,
             "head_dim"_a, "row_set"_a, "scale"_a, "window"_a, "cap"_a, "query_rope"_a.none(),
             "key_rope"_a.none(), "wants_mass"_a)
        .def("finish", &Program::finish, "keep"_a);
}

}  // namespace pelton::bindings
