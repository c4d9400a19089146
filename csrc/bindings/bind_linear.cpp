#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "bindings/bindings.h"
#include "core/clock.h"
#include "core/errors.h"
#include "core/head_screen.h"
#include "core/isa_level.h"
#include "core/packed_weight.h"
#include "core/partition.h"
#include "core/standard_floats.h"
#include "core/weight_pairs.h"
#include "runtime/frame.h"

namespace pelton::bindings {

namespace {

using Width = std::int64_t;

Width width_of(std::size_t size) { return static_cast<Width>(size); }

WeightLayout float_layout(const std::string& dtype) {
    WeightLayout layout;
    if (dtype == "F16") {
        layout.kind = WeightKind::kF16;
    } else if (dtype == "BF16") {
        layout.kind = WeightKind::kBF16;
    } else if (dtype != "F32") {
        throw Error(ErrorKind::kUnsupported, "float weights are F32, F16 or BF16, not " + dtype);
    }
    return layout;
}

WeightLayout block_layout(int bits, int group, int offset, const std::string& scale_dtype, bool has_minimum,
                          const std::optional<std::vector<int>>& table) {
    WeightLayout layout;
    layout.kind = WeightKind::kBlock;
    require(scale_dtype == "f16" || scale_dtype == "f32", "scales are f16 or f32");
    require(bits >= 0 && bits <= 8 && group >= 0 && group <= 32 && offset >= 0 && offset <= 255,
            "bits, group or offset of a block layout is out of range");
    layout.bits = static_cast<std::uint8_t>(bits);
    layout.group = static_cast<std::uint8_t>(group);
    layout.offset = static_cast<std::int16_t>(offset);
    layout.half_scales = scale_dtype == "f16";
    layout.has_minimum = has_minimum;
    layout.has_table = table.has_value();
    if (table) {
        require(table->size() == 16, "a code table has 16 entries");
        for (std::size_t i = 0; i < 16; ++i) {
            require((*table)[i] >= 0 && (*table)[i] <= 255, "a code table holds 0..255");
            layout.table[i] = static_cast<std::uint8_t>((*table)[i]);
        }
    }
    check_layout(layout);
    return layout;
}

void pack_codes(PackedWeight& weight, Width first_row, Array<const std::uint8_t, 2> codes,
                Array<const float, 2> scales, const std::optional<Array<const float, 2>>& minimums,
                ThreadPool& pool) {
    const std::size_t rows = codes.shape(0), inputs = static_cast<std::size_t>(weight.inputs());
    require(weight.layout().kind == WeightKind::kBlock, "codes cannot be packed into a float weight");
    const std::size_t groups = inputs / weight.layout().group;
    require(codes.shape(1) == inputs, "codes must be [rows, inputs]");
    require(scales.shape(0) == rows && scales.shape(1) == groups, "scales must be [rows, inputs / group]");
    require(!minimums || (minimums->shape(0) == rows && minimums->shape(1) == groups),
            "minimums must be [rows, inputs / group]");
    const float* minimum_data = minimums ? minimums->data() : nullptr;
    nb::gil_scoped_release release;
    weight.pack_codes(first_row, width_of(rows), codes.data(), scales.data(), minimum_data, pool);
}

void pack_floats(PackedWeight& weight, Width first_row, Array<const std::uint8_t, 2> bytes,
                 ThreadPool& pool) {
    const Width value = weight.layout().kind == WeightKind::kF32 ? 4 : 2;
    require(width_of(bytes.shape(1)) == weight.inputs() * value,
            "float rows must be [rows, bytes of inputs]");
    nb::gil_scoped_release release;
    weight.pack_floats(first_row, width_of(bytes.shape(0)), bytes.data(), pool);
}

void pack_gguf(PackedWeight& weight, Width first_row, const std::string& format,
               Array<const std::uint8_t, 2> blocks, ThreadPool& pool) {
    require(width_of(blocks.shape(1)) == gguf_row_bytes(format, weight.inputs()),
            "GGUF rows must be [rows, bytes of a row of blocks]");
    nb::gil_scoped_release release;
    weight.pack_gguf(first_row, width_of(blocks.shape(0)), format, blocks.data(), pool);
}

Array<float, 2> unpack_rows(const PackedWeight& weight, Array<const std::int64_t, 1> rows) {
    const std::size_t width = static_cast<std::size_t>(weight.inputs());
    for (std::size_t i = 0; i < rows.size(); ++i)
        require(rows.data()[i] >= 0 && rows.data()[i] < weight.outputs(), "a row lies outside the weight");
    float* values = new float[rows.size() * width];
    Array<float, 2> result = owned_array<float, 2>(values, {rows.size(), width});
    nb::gil_scoped_release release;
    const StandardFloats floats;
    for (std::size_t i = 0; i < rows.size(); ++i) weight.unpack_row(rows.data()[i], values + i * width);
    return result;
}

// blocks as bytes [rows, width / 32 * 48]
Array<std::uint8_t, 2> quantize(Array<const float, 2> x, const std::string& isa, bool fine) {
    require(x.shape(1) > 0 && x.shape(1) % kBlockInputs == 0, "activations are quantized in blocks of 32");
    const StandardFloats floats;
    const std::size_t blocks = x.shape(1) / kBlockInputs, row_bytes = blocks * sizeof(ActivationBlock);
    auto* bytes = new std::uint8_t[x.shape(0) * row_bytes];
    Array<std::uint8_t, 2> result = owned_array<std::uint8_t, 2>(bytes, {x.shape(0), row_bytes});
    kernels_for(isa).linear.quantize(x.data(), width_of(x.shape(1)), width_of(x.shape(1)), fine,
                                     reinterpret_cast<ActivationBlock*>(bytes), 0,
                                     width_of(x.shape(0) * blocks));
    return result;
}

// pairs as bytes [rows, pairs * 88]
Array<std::uint8_t, 2> quantize_pairs(Array<const float, 2> x, int segment, const std::string& isa,
                                      bool fine) {
    require(segment >= 1 && segment <= kMostSegmentPairs, "a segment has 1 to 9 pairs");
    require(x.shape(1) > 0 && x.shape(1) % kBlockInputs == 0, "activations are quantized in blocks of 32");
    const StandardFloats floats;
    const Width width = width_of(x.shape(1));
    const Width row_pairs = pairs_of(width);
    const std::size_t row_bytes = static_cast<std::size_t>(row_pairs) * sizeof(ActivationPair);
    auto* bytes = new std::uint8_t[x.shape(0) * row_bytes];
    Array<std::uint8_t, 2> result = owned_array<std::uint8_t, 2>(bytes, {x.shape(0), row_bytes});
    kernels_for(isa).linear.quantize_pairs({x.data(), width, width, width_of(x.shape(0)),
                                            reinterpret_cast<ActivationPair*>(bytes), row_pairs, segment,
                                            fine});
    return result;
}

// Rounded rows, in the form a weight wants.
struct Rounded {
    std::unique_ptr<ActivationBlock[]> blocks;
    std::unique_ptr<ActivationPair[]> pairs;
    Width row_blocks = 0, row_pairs = 0;
    int segment;

    Rounded(const PackedWeight& weight, Width rows) : segment(weight.layout().segment) {
        if (weight.layout().kind == WeightKind::kBlock) row_blocks = weight.inputs() / kBlockInputs;
        if (weight.layout().kind == WeightKind::kPairs) row_pairs = pairs_of(weight.inputs());
        blocks = std::make_unique<ActivationBlock[]>(static_cast<std::size_t>(rows * row_blocks));
        pairs = std::make_unique<ActivationPair[]>(static_cast<std::size_t>(rows * row_pairs));
    }
    // A thread's share of rows.
    void round(const KernelTable& kernels, const float* x, Width width, Width rows, bool fine, Width thread,
               Width threads) {
        const Width begin = rows * thread / threads, end = rows * (thread + 1) / threads;
        if (row_blocks > 0)
            kernels.linear.quantize(x, width, width, fine, blocks.get(), begin * row_blocks,
                                    end * row_blocks);
        if (row_pairs > 0)
            kernels.linear.quantize_pairs({x + begin * width, width, width, end - begin,
                                           pairs.get() + begin * row_pairs, row_pairs, segment, fine});
    }
};

// y = x w^T (+ bias) (+ y); quantizes x first when the weight is block-quantized.
void linear(const PackedWeight& weight, Array<const float, 2> x, Rows<float> y,
            const std::optional<Array<const float, 1>>& bias, bool add_to_outputs, ThreadPool& pool,
            const std::string& isa, bool fine, const WeightReading& reading) {
    const Width rows = width_of(x.shape(0)), inputs = weight.inputs();
    require(width_of(x.shape(1)) == inputs, "x must be [rows, inputs]");
    require(width_of(y.shape(0)) == rows && width_of(y.shape(1)) == weight.outputs() && y.stride(1) == 1 &&
                y.stride(0) >= weight.outputs(),
            "y must be [rows, outputs] with its last axis contiguous");
    require(!bias || width_of(bias->shape(0)) == weight.outputs(), "bias must be [outputs]");
    const KernelTable& kernels = kernels_for(isa);
    Rounded rounded(weight, rows);
    LinearCall call{weight.view(), rounded.blocks.get(),          x.data(),       inputs, y.data(),
                    y.stride(0),   bias ? bias->data() : nullptr, add_to_outputs, fine,   reading};
    call.pairs = rounded.pairs.get();
    nb::gil_scoped_release release;
    pool.run([&](int thread_id) {
        rounded.round(kernels, call.inputs, inputs, rows, fine, thread_id, pool.num_threads());
        pool.barrier();
        kernels.linear.linear(call, linear_share(weight.num_panels(), rows, thread_id, pool.num_threads()));
    });
}

// What weights that can share rounded rows have in common: inputs, and the segment or else the kind.
std::pair<Width, int> form_of(const PackedWeight& weight) {
    const WeightLayout& layout = weight.layout();
    return {weight.inputs(),
            layout.kind == WeightKind::kPairs ? layout.segment : -1 - static_cast<int>(layout.kind)};
}

// Seconds of one pass over weights as a decode step of `rows` rows makes it: products one after another, a
// barrier between.
double stream_seconds(const std::vector<std::shared_ptr<PackedWeight>>& weights, Width rows,
                      const WeightReading& reading, ThreadPool& pool, const std::string& isa) {
    require(rows > 0 && rows <= 4096, "the number of rows is out of range");
    Width inputs = 0, outputs = 0;
    for (const auto& weight : weights) {
        require(weight != nullptr, "a weight is missing");
        inputs = std::max(inputs, weight->inputs());
        outputs = std::max(outputs, weight->outputs());
    }
    const std::vector<float> x(static_cast<std::size_t>(rows * inputs));
    std::vector<float> y(static_cast<std::size_t>(rows * outputs));
    const KernelTable& kernels = kernels_for(isa);
    std::map<std::pair<Width, int>, Rounded> rounded;
    for (const auto& weight : weights) {
        const auto [place, is_new] = rounded.try_emplace(form_of(*weight), *weight, rows);
        if (is_new) place->second.round(kernels, x.data(), weight->inputs(), rows, false, 0, 1);
    }
    const std::int64_t start = nanoseconds();
    pool.run([&](int thread_id) {
        for (const auto& weight : weights) {
            const Rounded& own = rounded.at(form_of(*weight));
            LinearCall call{weight->view(), own.blocks.get(),
                            x.data(),       weight->inputs(),
                            y.data(),       weight->outputs(),
                            nullptr,        false,
                            false,          reading};
            call.pairs = own.pairs.get();
            kernels.linear.linear(call,
                                  linear_share(weight->num_panels(), rows, thread_id, pool.num_threads()));
            pool.barrier();
        }
    });
    return static_cast<double>(nanoseconds() - start) * 1e-9;
}

void bind_weight(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<WeightLayout>(m, "WeightLayout")
        .def_static("floats", &float_layout, "dtype"_a)
        .def_static("block", &block_layout, "bits"_a, "group"_a, "offset"_a, "scale_dtype"_a, "has_minimum"_a,
                    "table"_a = nb::none())
        .def_static("gguf", &gguf_layout, "format"_a)
        .def_prop_ro("has_pairs", [](const WeightLayout& layout) { return has_pairs(layout); });
    nb::class_<WeightReading>(m, "WeightReading")
        .def(
            "__init__",
            [](WeightReading* reading, Width ahead, bool keep, int panels, int prepared) {
                require(ahead >= 0 && ahead <= (Width{1} << 20), "a distance to prefetch is out of range");
                if (panels != 0 && panels != 1 && panels != 2 && panels != 4)
                    throw Error(ErrorKind::kInvalidArgument,
                                "panels side by side are 1, 2 or 4, or 0 for the kernel's choice, not " +
                                    std::to_string(panels));
                if (prepared < 0 || prepared > 2)
                    throw Error(
                        ErrorKind::kInvalidArgument,
                        "prepared are 0 nothing, 1 codes or 2 scales, not " + std::to_string(prepared));
                new (reading) WeightReading{ahead, keep, panels, static_cast<Prepared>(prepared)};
            },
            "ahead"_a, "keep"_a, "panels"_a, "prepared"_a)
        .def_static("usual", &usual_reading)
        .def_ro("ahead", &WeightReading::ahead)
        .def_ro("keep", &WeightReading::keep)
        .def_ro("panels", &WeightReading::panels)
        .def_prop_ro("prepared",
                     [](const WeightReading& reading) { return static_cast<int>(reading.prepared); });
    nb::class_<WeightMemory>(m, "WeightMemory").def(nb::init<>());
    nb::class_<PackedWeight>(m, "PackedWeight")
        .def(nb::init<Width, Width, const WeightLayout&, WeightMemory*>(), "outputs"_a, "inputs"_a,
             "layout"_a, "memory"_a = nb::none())
        .def_prop_ro("outputs", &PackedWeight::outputs)
        .def_prop_ro("inputs", &PackedWeight::inputs)
        .def_prop_ro("num_bytes", &PackedWeight::num_bytes)
        .def_prop_ro("has_blocks", &PackedWeight::has_blocks)
        .def("pack_codes", &pack_codes, "first_row"_a, "codes"_a.noconvert(), "scales"_a.noconvert(),
             "minimums"_a.noconvert().none(), "pool"_a)
        .def("pack_floats", &pack_floats, "first_row"_a, "rows"_a.noconvert(), "pool"_a)
        .def("pack_gguf", &pack_gguf, "first_row"_a, "format"_a, "rows"_a.noconvert(), "pool"_a)
        .def(
            "in_pairs",
            [](const PackedWeight& weight, int segment, ThreadPool& pool, WeightMemory* memory) {
                return std::make_shared<PackedWeight>(weight, segment, memory, pool);
            },
            "segment"_a, "pool"_a, "memory"_a = nb::none(), nb::call_guard<nb::gil_scoped_release>())
        .def("unpack_rows", &unpack_rows, "rows"_a.noconvert());
    m.def("reads_gguf", &reads_gguf, "format"_a);
}

Array<float, 2> samples_of(const HeadScreen& screen) {
    const std::vector<float>& from = screen.samples();
    auto* data = new float[from.size()];
    std::copy(from.begin(), from.end(), data);
    return owned_array<float, 2>(data, {static_cast<std::size_t>(screen.num_samples()),
                                        static_cast<std::size_t>(screen.head().inputs())});
}

void set_directions(HeadScreen& screen, Array<const float, 2> directions, ThreadPool& pool) {
    require(directions.shape(0) == kScreenDirections &&
                static_cast<Width>(directions.shape(1)) == screen.head().inputs(),
            "directions must be [32, inputs]");
    nb::gil_scoped_release release;
    screen.set_directions(directions.data(), pool);
}

void bind_screen(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<HeadScreen>(m, "HeadScreen")
        .def(
            "__init__",
            [](HeadScreen* screen, std::shared_ptr<PackedWeight> head) {
                new (screen) HeadScreen(std::move(head));
            },
            "head"_a)
        .def_prop_ro("num_samples", &HeadScreen::num_samples)
        .def("samples", &samples_of)
        .def_prop_ro("has_directions", &HeadScreen::has_directions)
        .def("set_directions", &set_directions, "directions"_a.noconvert(), "pool"_a)
        .def("build", &HeadScreen::build, "num_rows"_a, "pool"_a, nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("ready", &HeadScreen::ready)
        .def("switch_on", &HeadScreen::switch_on, "on"_a)
        .def_prop_ro("share", &HeadScreen::share)
        .def_prop_ro("num_bytes", &HeadScreen::num_bytes);
    m.attr("SCREEN_SAMPLES") = kScreenSamples;
    m.attr("SCREEN_DIRECTIONS") = kScreenDirections;
}

}  // namespace

void bind_linear(nb::module_& m) {
    using namespace nb::literals;
    bind_weight(m);
    bind_screen(m);
    m.attr("ACTIVATION_BLOCK_BYTES") = sizeof(ActivationBlock);
    m.attr("ACTIVATION_PAIR_BYTES") = sizeof(ActivationPair);
    m.attr("MOST_SEGMENT_PAIRS") = kMostSegmentPairs;
    m.def("quantize_pairs", &quantize_pairs, "x"_a.noconvert(), "segment"_a, "isa"_a = "", "fine"_a = false);
    m.def("quantize", &quantize, "x"_a.noconvert(), "isa"_a = "", "fine"_a = false);
    m.def("linear", &linear, "weight"_a, "x"_a.noconvert(), "y"_a.noconvert(), "bias"_a.noconvert().none(),
          "add_to_outputs"_a, "pool"_a, "isa"_a = "", "fine"_a = false, "reading"_a = usual_reading());
    m.def("stream_seconds", &stream_seconds, "weights"_a, "rows"_a, "reading"_a, "pool"_a, "isa"_a = "",
          nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace pelton::bindings
