// Instructions that compute each row by itself.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/packed_weight.h"
#include "kernels/elementwise.h"
#include "runtime/instruction.h"
#include "runtime/rope_table.h"

namespace pelton {

using Vector = std::vector<float>;  // empty: absent

// y[r] = table[token or position of r] * scale
class EmbedInstruction : public Instruction {
  public:
    EmbedInstruction(int y, std::shared_ptr<const PackedWeight> table, float scale, bool by_position);
    void check(const ValueCheck& values) const override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "embed"; }

  private:
    int y_;
    std::shared_ptr<const PackedWeight> table_;
    float scale_;
    bool by_position_;
};

struct NormSpec {
    Vector weight, bias;  // of one group or the whole row
    std::int64_t group;   // elements that are normalized together
    float eps;
    bool centred;  // LayerNorm, else RMSNorm
};

class NormInstruction : public Instruction {
  public:
    NormInstruction(int x, int y, NormSpec spec);
    void check(const ValueCheck& values) const override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return spec_.centred ? "layer_norm" : "rms_norm"; }

  private:
    const float* as_rows(const Vector& given, std::int64_t width, Vector& repeated) const;
    int x_, y_;
    NormSpec spec_;
};

enum class Elementwise { kAdd, kMul, kScale, kSoftCap, kActivate };

class ElementwiseInstruction : public Instruction {
  public:
    // y = a (+ or *) b, or a function of a alone (b = -1) with a scale factor, a cap or an activation.
    ElementwiseInstruction(Elementwise kind, int a, int b, int y, float number, Activation activation);
    void check(const ValueCheck& values) const override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override;

  private:
    Elementwise kind_;
    int a_, b_, y_;
    float number_;
    Activation activation_;
};

class RopeInstruction : public Instruction {
  public:
    RopeInstruction(int x, int y, std::shared_ptr<RopeTable> table);
    void check(const ValueCheck& values) const override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "rope"; }

  private:
    int x_, y_;
    std::shared_ptr<RopeTable> table_;
};

// Rounds rows to 8-bit blocks, y [rows, width / 32 blocks of 12 floats], or to pairs, y [rows, width / 64 of
// 22 floats].
class QuantizeInstruction : public Instruction {
  public:
    // segment: pairs to a unit; 0: to blocks.
    QuantizeInstruction(int x, int y, bool fine, int segment);
    void check(const ValueCheck& values) const override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "quantize"; }

  private:
    int x_, y_;
    bool fine_;
    int segment_;
};

class SelectInstruction : public Instruction {
  public:
    SelectInstruction(int x, int y);
    void check(const ValueCheck& values) const override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "select_rows"; }

  private:
    int x_, y_;
};

class ScatterInstruction : public Instruction {
  public:
    ScatterInstruction(int whole, int part, int y);
    void check(const ValueCheck& values) const override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "scatter_rows"; }

  private:
    int whole_, part_, y_;
};

class RouteInstruction : public Instruction {
  public:
    RouteInstruction(int x, int y, std::int64_t top_k, bool normalize);
    void check(const ValueCheck& values) const override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "route"; }

  private:
    int x_, y_;
    std::int64_t top_k_;
    bool normalize_;
};

}  // namespace pelton
