// WeightPlan: which tensor of the files goes where. Made from the configuration and the headers
// alone, before memory is allocated; load_weights carries it out. Values only.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/shapes.h"
#include "worker/model/model_config.h"
#include "worker/model/tensor_info.h"

namespace sluice::eng {

// A piece of the weights' memory. Matrices are packed or row-major, vectors are float.
struct Region {
  enum class Kind : std::uint8_t { vector, rows, packed };
  Kind kind = Kind::vector;
  krn::WeightType type = krn::WeightType::f32;
  std::size_t rows = 0;  // of the whole region; a fused matrix has several tensors
  std::size_t cols = 0;
  std::size_t offset = 0;  // in bytes, multiple of 64
  std::size_t bytes = 0;
};

struct Placement {
  std::size_t region;
  std::size_t first_row;  // of this tensor within the region; of a vector its first element
};

struct ExpectedTensor {
  std::vector<std::uint64_t> shape;
  std::vector<Placement> placements;  // two for a tied embedding; none: read, hashed, not used
  const TensorInfo* found = nullptr;
  std::string file;  // that holds it
};

struct WeightPlan {
  std::vector<Region> regions;
  std::map<std::string, ExpectedTensor> tensors;
  std::size_t bytes = 0;  // of all regions

  // Indexes into regions.
  std::size_t embedding = 0;
  std::size_t final_norm = 0;
  std::size_t head = 0;
  std::optional<std::size_t> rope_divisors;
  struct Layer {
    std::size_t attention_norm, attention_out, mlp_norm, down;
    std::vector<std::size_t> qkv, gate_up;  // by rows
    std::optional<std::size_t> qkv_bias, q_norm, k_norm;
  };
  std::vector<Layer> layers;
};

struct Shard {
  std::string name;
  TensorTable table;
};

// What becomes of matrices that are stored as F32, F16 or BF16, where their rows are whole blocks
// of 32: int8 is Q8_0; int4 is Q4_0, of the output matrix Q8_0.
enum class MatrixForm : std::uint8_t { stored, int8, int4 };

// How the tensors of a model are called.
enum class TensorNaming : std::uint8_t { hugging_face, gguf };

struct PlanOptions {
  TensorNaming naming = TensorNaming::hugging_face;
  MatrixForm matrices = MatrixForm::stored;
  std::set<std::string> wide;  // quantized tensors that binary16 does not hold: stored as F32
};

// Matrices keep the type that they are stored in, or get that of `matrices`; fused ones whose parts
// differ are one region for each run of equal types where a quantized one is among them, else
// float, which is exact. Quantized embeddings and vectors become F16, or F32 where they are wide.
// Errors (bad_file) name the file and the tensor: missing, unexpected, twice, wrong shape or dtype.
Result<WeightPlan> make_weight_plan(const ModelConfig& config, const std::vector<Shard>& shards,
                                    const PlanOptions& options);

}  // namespace sluice::eng
