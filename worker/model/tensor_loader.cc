// Pieces of rows through converters into regions; see tensor_loader.h.
#include "worker/model/tensor_loader.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>

#include "kernels/half_float.h"
#include "kernels/kernel_table.h"
#include "kernels/pack.h"

namespace sluice::eng {
namespace {

// Read, digested and packed at a time; at least one row. Small enough that a piece is still in a
// cache when the last thread takes it.
constexpr std::size_t kPieceBytes = 1u << 20;

krn::WeightType type_of(const TensorInfo& tensor) {
  return tensor.dtype == Dtype::f32    ? krn::WeightType::f32
         : tensor.dtype == Dtype::bf16 ? krn::WeightType::bf16
                                       : krn::WeightType::f16;
}

// Rows as the kernels can take them.
struct Rows {
  const std::uint8_t* data;
  krn::WeightType type;
};

// The binary16 scales of whole blocks: one or two at their beginning, or one at the end.
bool has_finite_scales(krn::BlockFormat format, std::span<const std::uint8_t> blocks) {
  const std::size_t bytes = krn::block_shape(format).bytes;
  const auto is_finite = [&](std::size_t at) { return (blocks[at + 1] & 0x7c) != 0x7c; };
  for (std::size_t at = 0; at < blocks.size(); at += bytes) {
    if (!is_finite(format == krn::BlockFormat::q6_k ? at + bytes - 2 : at)) return false;
    const bool has_min = format == krn::BlockFormat::q4_k || format == krn::BlockFormat::q5_k;
    if (has_min && !is_finite(at + 2)) return false;
  }
  return true;
}

// Turns blocks into F16 or F32, through buffers that live as long as it does.
class Dequantizer {
 public:
  // [num_blocks] of `blocks` become rows of `type`; nothing when a value is not finite. is_wide is
  // set when binary16 does not hold one of them: the rows are then of no use.
  std::optional<Rows> convert(krn::BlockFormat format, std::span<const std::uint8_t> blocks,
                              krn::WeightType type, bool& is_wide) {
    const krn::BlockShape shape = krn::block_shape(format);
    const std::size_t num_blocks = blocks.size() / shape.bytes;
    floats_.resize(num_blocks * shape.num_elements);
    krn::dequantize(format, blocks.data(), num_blocks, floats_.data());
    // Magnitudes are ordered like their bits.
    std::int32_t largest = 0;
    for (const float value : floats_)
      largest = std::max(largest, std::bit_cast<std::int32_t>(value) & 0x7fffffff);
    if (!std::isfinite(std::bit_cast<float>(largest))) return std::nullopt;
    if (type == krn::WeightType::f32)
      return Rows{reinterpret_cast<const std::uint8_t*>(floats_.data()), type};
    constexpr float kHalfMax = 65504;
    is_wide = is_wide || std::bit_cast<float>(largest) > kHalfMax;
    halves_.resize(floats_.size());
    std::ranges::transform(floats_, halves_.begin(), krn::float_to_f16);
    return Rows{reinterpret_cast<const std::uint8_t*>(halves_.data()), krn::WeightType::f16};
  }

 private:
  std::vector<float> floats_;
  std::vector<std::uint16_t> halves_;
};

// Turns rows of floats into the blocks of a quantized type, through buffers likewise.
class Quantizer {
 public:
  // Nothing when a value is not finite, or a block's scale not in binary16.
  std::optional<Rows> convert(const Rows& from, std::size_t num_elements, krn::WeightType type) {
    floats_.resize(num_elements);
    krn::find_kernels("auto")->widen(from.data, from.type, floats_.data(), num_elements);
    const auto is_finite = [](float value) { return std::isfinite(value); };
    if (!std::ranges::all_of(floats_, is_finite)) return std::nullopt;
    const krn::BlockFormat format =
        type == krn::WeightType::q8_0 ? krn::BlockFormat::q8_0 : krn::BlockFormat::q4_0;
    const std::size_t num_blocks = num_elements / krn::kQuantBlock;
    blocks_.resize(num_blocks * krn::block_shape(format).bytes);
    krn::quantize(format, floats_.data(), num_blocks, blocks_.data());
    if (!has_finite_scales(format, blocks_)) return std::nullopt;
    return Rows{blocks_.data(), type};
  }

 private:
  std::vector<float> floats_;
  std::vector<std::uint8_t> blocks_;
};

std::size_t row_bytes_of(const TensorInfo& tensor) {
  const std::size_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
  return tensor.bytes / rows;
}

}  // namespace

// Of one thread.
class TensorLoader::Converter {
 public:
  // Nothing when the piece can't become rows of this type; is_wide as Dequantizer::convert.
  std::optional<Rows> convert(const TensorInfo& tensor, std::span<const std::uint8_t> bytes,
                              krn::WeightType wanted, bool& is_wide) {
    const auto format = block_format(tensor.dtype);
    const krn::WeightType stored = type_of(tensor);
    if (!krn::is_quantized(wanted))
      return format ? dequantizer_.convert(*format, bytes, wanted, is_wide)
                    : Rows{bytes.data(), stored};
    if (!format)
      return quantizer_.convert({bytes.data(), stored}, bytes.size() / krn::weight_bytes(stored),
                                wanted);
    if (!has_finite_scales(*format, bytes)) return std::nullopt;
    return Rows{bytes.data(), wanted};
  }

 private:
  Dequantizer dequantizer_;
  Quantizer quantizer_;
};

TensorLoader::TensorLoader(const WeightPlan& plan, std::uint8_t* memory, std::size_t packers)
    : plan_(plan), memory_(memory), pieces_(packers == 0 ? 1 : 2 * packers + 4) {
  for (Piece& piece : pieces_) free_.push_back(&piece);
  if (packers == 0) {
    converter_ = std::make_unique<Converter>();
    return;
  }
  threads_.emplace_back([this] {
    serve(undigested_, has_undigested_, [this](Piece& piece) {
      piece.file->take_digest(piece.undigested);
      const std::lock_guard lock(mutex_);
      --num_undigested_;
    });
  });
  for (std::size_t i = 0; i < packers; ++i) {
    threads_.emplace_back([this] {
      Converter converter;
      serve(packable_, has_packable_, [&](Piece& piece) { pack(piece, converter); });
    });
  }
}

TensorLoader::~TensorLoader() {
  static_cast<void>(finish());
}

Result<void> TensorLoader::finish() {
  {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
  }
  has_packable_.notify_all();
  has_undigested_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  if (failure_) return *failure_;
  return {};
}

// Whole panels where a row is short enough: they are packed fastest.
std::uint64_t TensorLoader::piece_bytes(const TensorInfo& tensor) {
  const std::size_t row_bytes = row_bytes_of(tensor);
  const std::size_t rows = kPieceBytes / row_bytes;
  return (rows < krn::kLanes ? std::max<std::size_t>(rows, 1) : rows - rows % krn::kLanes) *
         row_bytes;
}

Result<void> TensorLoader::skip_to(ModelFile& file, std::uint64_t position) {
  CHECK(position >= file.position());
  while (file.position() < position) {
    const std::size_t bytes = std::min<std::uint64_t>(kPieceBytes, position - file.position());
    if (auto read = read_piece(file, {}, bytes); !read) return read;
  }
  return {};
}

Result<void> TensorLoader::read_piece(ModelFile& file, const Place& place, std::size_t bytes) {
  Piece* piece = nullptr;
  {
    std::unique_lock lock(mutex_);
    has_free_.wait(lock, [&] { return !free_.empty(); });
    if (failure_) return *failure_;  // finish() says which
    piece = free_.back();
    free_.pop_back();
  }
  piece->place = place;
  piece->file = &file;
  piece->number = next_number_++;
  if (piece->memory.size() < bytes) piece->memory.resize(bytes);
  piece->bytes = std::span(piece->memory).first(bytes);
  const auto undigested = file.read_undigested(piece->bytes);
  if (undigested && threads_.empty()) {
    file.take_digest(*undigested);
    if (place.tensor != nullptr) pack(*piece, *converter_);
  }
  const std::lock_guard lock(mutex_);
  if (!undigested || threads_.empty()) {
    free_.push_back(piece);
    if (!undigested) return undigested.error();
    return {};
  }
  piece->undigested = *undigested;
  piece->uses = place.tensor != nullptr ? 2 : 1;
  ++num_undigested_;
  undigested_.push_back(piece);
  has_undigested_.notify_one();
  if (place.tensor == nullptr) return {};
  packable_.push_back(piece);
  has_packable_.notify_one();
  return {};
}

void TensorLoader::wait_for_digest() {
  std::unique_lock lock(mutex_);
  has_free_.wait(lock, [&] { return num_undigested_ == 0; });
}

template <class Work>
void TensorLoader::serve(std::deque<Piece*>& queue, std::condition_variable& has_some,
                         const Work& work) {
  for (;;) {
    Piece* piece = nullptr;
    {
      std::unique_lock lock(mutex_);
      has_some.wait(lock, [&] { return !queue.empty() || is_closed_; });
      if (queue.empty()) return;
      piece = queue.front();
      queue.pop_front();
    }
    work(*piece);
    {
      const std::lock_guard lock(mutex_);
      if (--piece->uses == 0) free_.push_back(piece);
    }
    has_free_.notify_one();
  }
}

// Pieces write to bytes of their own: of a panel that two of them share, each to its rows' lanes.
void TensorLoader::pack(Piece& piece, Converter& converter) {
  const TensorInfo& tensor = *piece.place.tensor;
  const std::size_t row_bytes = row_bytes_of(tensor);
  bool is_wide = false;
  for (const Placement& placement : piece.place.planned->placements) {
    const krn::WeightType wanted = plan_.regions[placement.region].type;
    const auto rows = converter.convert(tensor, piece.bytes, wanted, is_wide);
    if (!rows) {
      const std::lock_guard lock(mutex_);
      if (failure_ && failure_number_ < piece.number) return;
      failure_number_ = piece.number;
      failure_ = make_error(Errc::bad_file, printable(piece.file->name()) + ": tensor '" +
                                                printable(tensor.name) +
                                                "' holds values that are not finite, or too large "
                                                "for its type");
      return;
    }
    put(rows->data, rows->type, placement, piece.place.at / row_bytes,
        piece.bytes.size() / row_bytes, tensor.shape.back());
  }
  if (!is_wide) return;
  const std::lock_guard lock(mutex_);
  wide_.insert(tensor.name);
}

void TensorLoader::put(const void* rows, krn::WeightType type, const Placement& placement,
                       std::size_t first_row, std::size_t num_rows, std::size_t num_cols) {
  const Region& region = plan_.regions[placement.region];
  std::uint8_t* to = memory_ + region.offset;
  switch (region.kind) {
    case Region::Kind::vector:
      krn::find_kernels("scalar")->widen(
          rows, type, reinterpret_cast<float*>(to) + placement.first_row, num_cols);
      return;
    case Region::Kind::rows: {  // one tensor, so the types are equal
      const std::size_t row_bytes = region.cols * krn::weight_bytes(region.type);
      std::copy_n(static_cast<const std::uint8_t*>(rows), num_rows * row_bytes,
                  to + (placement.first_row + first_row) * row_bytes);
      return;
    }
    case Region::Kind::packed:
      krn::pack_rows(rows, type, num_rows, region.cols, placement.first_row + first_row, to,
                     region.type);
      return;
  }
}

}  // namespace sluice::eng
