// From packed host memory to rows on the device.
#include "worker/cuda/device_weights.h"

#include <algorithm>

#include "kernels/kernel_table.h"
#include "kernels/pack.h"

namespace sluice::eng {
namespace {

constexpr std::size_t kPieceFloats = std::size_t{4} << 20;  // unpacked at a time; at least one row

class Uploader {
 public:
  Uploader(Device& device, std::vector<DeviceBuffer>& buffers)
      : device_(device), buffers_(buffers) {}

  // Nothing for what the model has not.
  const float* vector(const float* from, std::size_t size) {
    if (from == nullptr) return nullptr;
    return upload(1, size,
                  [&](std::size_t, std::size_t, float* out) { std::copy(from, from + size, out); })
        .data;
  }

  DeviceMatrix matrix(const krn::PackedMatrix& from) {
    return upload(from.rows, from.cols, [&](std::size_t first, std::size_t rows, float* out) {
      krn::unpack_rows(from, first, rows, out);
    });
  }

  // One matrix, whatever the parts' types.
  DeviceMatrix matrix(const FusedMatrix& from) {
    return upload(from.rows(), from.cols(), [&](std::size_t first, std::size_t rows, float* out) {
      std::size_t part_begin = 0;
      for (const krn::PackedMatrix& part : from.parts) {
        const std::size_t begin = std::max(first, part_begin);
        const std::size_t end = std::min(first + rows, part_begin + part.rows);
        if (begin < end)
          krn::unpack_rows(part, begin - part_begin, end - begin,
                           out + (begin - first) * from.cols());
        part_begin += part.rows;
      }
    });
  }

  // `from`: row-major, of the files' type.
  DeviceMatrix rows(const void* from, krn::WeightType type, std::size_t rows, std::size_t cols) {
    const krn::KernelTable& kernels = *krn::find_kernels("scalar");
    const auto* bytes = static_cast<const char*>(from);
    return upload(rows, cols, [&](std::size_t first, std::size_t count, float* out) {
      kernels.widen(bytes + first * cols * krn::weight_bytes(type), type, out, count * cols);
    });
  }

 private:
  // fill(first_row, rows, out) writes a piece of rows.
  template <class Fill>
  DeviceMatrix upload(std::size_t rows, std::size_t cols, const Fill& fill) {
    DeviceBuffer buffer = device_.allocate(rows, cols * sizeof(float), "weights");
    float* to = buffer.floats();
    const std::size_t step = std::clamp<std::size_t>(kPieceFloats / cols, 1, rows);
    piece_.resize(std::max(piece_.size(), step * cols));
    for (std::size_t first = 0; first < rows && device_.check(); first += step) {
      const std::size_t count = std::min(step, rows - first);
      fill(first, count, piece_.data());
      device_.run(device_.table().copy_to_device, "weights", to + first * cols, piece_.data(),
                  count * cols * sizeof(float));
    }
    buffers_.push_back(std::move(buffer));
    return {to, rows, cols};
  }

  Device& device_;
  std::vector<DeviceBuffer>& buffers_;
  std::vector<float> piece_;
};

}  // namespace

Result<DeviceWeights> upload_weights(const ModelWeights& weights, Device& device) {
  const ModelConfig& c = weights.config;
  DeviceWeights on_device;
  Uploader to(device, on_device.buffers);
  on_device.embedding =
      to.rows(weights.embedding, weights.embedding_type, c.vocab_size, c.hidden_size);
  for (const LayerWeights& layer : weights.layers) {
    on_device.layers.push_back({.attention_norm = to.vector(layer.attention_norm, c.hidden_size),
                                .qkv = to.matrix(layer.qkv),
                                .qkv_bias = to.vector(layer.qkv_bias, layer.qkv.rows()),
                                .q_norm = to.vector(layer.q_norm, c.head_dim),
                                .k_norm = to.vector(layer.k_norm, c.head_dim),
                                .attention_out = to.matrix(layer.attention_out),
                                .mlp_norm = to.vector(layer.mlp_norm, c.hidden_size),
                                .gate_up = to.matrix(layer.gate_up),
                                .down = to.matrix(layer.down)});
  }
  on_device.final_norm = to.vector(weights.final_norm, c.hidden_size);
  on_device.head = c.tied_embeddings ? on_device.embedding : to.matrix(weights.head);
  const Result<void> done = device.synchronize();
  if (!done) return done.error();
  return on_device;
}

}  // namespace sluice::eng
