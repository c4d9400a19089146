#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "bindings/bindings.h"
#include "core/errors.h"
#include "core/isa_level.h"
#include "runtime/sampling.h"

namespace pelton::bindings {

namespace {

using Logits = Array<const float, 2>;
// Row, temperature, logarithm of min-p, top-k, top-p, random number: RowChoice without its answer.
using Choice = std::tuple<std::int64_t, double, double, std::int64_t, double, double>;

LogitRows rows_of(const Logits& logits) {
    return {logits.data(), static_cast<std::int64_t>(logits.shape(0)),
            static_cast<std::int64_t>(logits.shape(1))};
}

std::vector<std::int32_t> tokens_of(RowSampler& sampler, const Logits& logits,
                                    std::vector<RowChoice>& choices) {
    {
        nb::gil_scoped_release release;
        sampler.choose(rows_of(logits), choices);
    }
    std::vector<std::int32_t> tokens;
    for (const RowChoice& choice : choices) tokens.push_back(choice.token);
    return tokens;
}

std::vector<std::int32_t> most_likely(RowSampler& sampler, const Logits& logits) {
    std::vector<RowChoice> choices;
    for (std::int64_t row = 0; row < static_cast<std::int64_t>(logits.shape(0)); ++row)
        choices.push_back({row, 0.0f, 0.0, 0, 1.0, 0.0});
    return tokens_of(sampler, logits, choices);
}

std::vector<std::int32_t> choose(RowSampler& sampler, const Logits& logits, const std::vector<Choice>& rows) {
    std::vector<RowChoice> choices;
    for (const auto& [row, temperature, log_min_p, top_k, top_p, random] : rows)
        choices.push_back({row, static_cast<float>(temperature), log_min_p, top_k, top_p, random});
    return tokens_of(sampler, logits, choices);
}

// For tests: the whole-number weights of a row without NaN, whose largest is `peak`.
Array<std::int64_t, 1> softmax_weights(const Array<const float, 1>& row, float peak, const std::string& isa) {
    auto* weights = new std::int64_t[row.size()];
    const SampleKernels& kernels = kernels_for(isa).sample;
    for (std::size_t start = 0; start < row.size(); start += kSampleBlock)
        kernels.weigh(row.data() + start,
                      static_cast<std::int64_t>(std::min<std::size_t>(kSampleBlock, row.size() - start)),
                      peak, weights + start);
    return owned_array<std::int64_t, 1>(weights, {row.size()});
}

}  // namespace

void bind_sampling(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<RowSampler>(m, "RowSampler")
        .def(
            "__init__",
            [](RowSampler* sampler, std::shared_ptr<ThreadPool> pool, const std::string& isa) {
                new (sampler) RowSampler(std::move(pool), kernels_for(isa));
            },
            "pool"_a, "isa"_a)
        .def("most_likely", &most_likely, "logits"_a.noconvert())
        .def("choose", &choose, "logits"_a.noconvert(), "rows"_a);
    m.def("softmax_weights", &softmax_weights, "row"_a.noconvert(), "peak"_a, "isa"_a = "");
}

}  // namespace pelton::bindings
