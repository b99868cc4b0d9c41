// Pieces of rows through converters into regions; see tensor_loader.h.
#include "worker/model/tensor_loader.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <thread>
#include <utility>

#include "kernels/half_float.h"
#include "kernels/kernel_table.h"
#include "kernels/pack.h"

namespace sluice::eng {
namespace {

// Read, digested and packed at a time; at least one row. Small enough that a thread that read a
// piece still has it in its cache when it packs it.
constexpr std::uint64_t kPieceBytes = 256u << 10;
constexpr std::uint64_t kPanelBytesMax = 1u << 20;  // a panel of so many is one piece, too
// Pieces beyond two for each thread: what is read before the digest asks for it.
constexpr std::size_t kPiecesAhead = 8;
constexpr std::size_t kUndigestedMin = 2;  // with fewer read ahead the digest might have to wait

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
    krn::floats_to_f16(floats_.data(), floats_.size(), halves_.data());
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

TensorLoader::TensorLoader(const WeightPlan& plan, std::uint8_t* memory, std::size_t threads)
    : plan_(plan), memory_(memory), num_threads_(threads), pieces_(kPiecesAhead + 2 * threads) {
  CHECK(threads > 0);
  for (Piece& piece : pieces_) free_.push_back(&piece);
}

TensorLoader::~TensorLoader() = default;

Result<void> TensorLoader::read_tensors(ModelFile& file, const Shard& shard,
                                        const OnRead& on_read) {
  file_ = &file;
  shard_ = &shard;
  next_tensor_ = 0;
  bytes_read_ = 0;
  is_ended_ = failure_.has_value();
  {
    std::vector<std::jthread> others;
    for (std::size_t i = 1; i < num_threads_; ++i) others.emplace_back([this] { work(nullptr); });
    work(&on_read);
  }
  if (failure_) return *failure_;
  return {};
}

// Whole panels where a row is short enough: they are packed fastest, and pieces share none.
std::uint64_t TensorLoader::piece_bytes(const TensorInfo& tensor) {
  const std::uint64_t row = row_bytes_of(tensor);
  const std::uint64_t panel = row * krn::kLanes;
  if (panel <= kPieceBytes) return kPieceBytes / panel * panel;
  return panel <= kPanelBytesMax ? panel : std::max(kPieceBytes / row, std::uint64_t{1}) * row;
}

// At the file's position: some of a tensor that the plan uses, or of what lies before the next one.
// Nothing at the end of the file.
std::optional<TensorLoader::Place> TensorLoader::next_place() {
  const std::uint64_t position = file_->position();
  const auto gap_to = [&](std::uint64_t end) {
    CHECK(position <= end);
    return Place{nullptr, nullptr, 0, std::min<std::uint64_t>(kPieceBytes, end - position)};
  };
  for (; next_tensor_ < shard_->table.tensors.size(); ++next_tensor_) {
    const TensorInfo& tensor = shard_->table.tensors[next_tensor_];
    const auto planned = plan_.tensors.find(tensor.name);
    if (planned == plan_.tensors.end() || tensor.bytes == 0) continue;
    const std::uint64_t begin = shard_->table.data_begin + tensor.offset;
    if (position < begin) return gap_to(begin);
    const std::uint64_t at = position - begin;
    if (at < tensor.bytes)
      return Place{&tensor, &planned->second, at, std::min(piece_bytes(tensor), tensor.bytes - at)};
  }
  if (position >= file_->bytes()) return std::nullopt;
  return gap_to(file_->bytes());
}

// What a thread that is free does. Reading precedes packing only to keep another thread's digest
// going: what was just read is in this thread's cache.
TensorLoader::Task TensorLoader::choose() const {
  if (!is_digesting_ && !undigested_.empty()) return Task::digest;
  const bool can_read = !is_ended_ && !is_reading_ && reads_on_ && !free_.empty();
  const bool is_scarce = num_threads_ > 1 && undigested_.size() < kUndigestedMin;
  if (can_read && is_scarce) return Task::read;
  if (!packable_.empty()) return Task::pack;
  if (can_read) return Task::read;
  // The thread at the digest takes what is left of it.
  return is_ended_ && !is_reading_ ? Task::leave : Task::wait;
}

void TensorLoader::work(const OnRead* on_read) {
  Converter converter;
  std::uint64_t told = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    while (on_read != nullptr && told != bytes_read_) {
      const std::uint64_t more = bytes_read_ - std::exchange(told, bytes_read_);
      lock.unlock();
      (*on_read)(more);
      lock.lock();
    }
    switch (choose()) {
      case Task::digest:
        take_digest(lock);
        break;
      case Task::read:
        read(lock);
        break;
      case Task::pack:
        pack(lock, converter);
        break;
      case Task::wait:
        ++num_waiting_;
        has_work_.wait(lock);
        --num_waiting_;
        break;
      case Task::leave:
        has_work_.notify_all();
        return;
    }
  }
}

// Of those who took a task: is there another one, somebody else takes that.
void TensorLoader::wake() {
  if (num_waiting_ > 0 && choose() != Task::wait) has_work_.notify_one();
}

void TensorLoader::read(std::unique_lock<std::mutex>& lock) {
  Piece& piece = *free_.back();
  free_.pop_back();
  if (free_.empty()) reads_on_ = false;
  is_reading_ = true;
  piece.number = next_number_++;
  wake();
  lock.unlock();
  const std::optional<Place> place = next_place();
  Result<std::span<const std::uint8_t>> fresh = std::span<const std::uint8_t>();
  if (place) {
    piece.place = *place;
    if (piece.memory.size() < place->bytes) piece.memory.resize(place->bytes);
    const std::span<std::uint8_t> bytes = std::span(piece.memory).first(place->bytes);
    piece.bytes = bytes;
    fresh = file_->read_undigested(bytes);
  }
  lock.lock();
  is_reading_ = false;
  if (!place || !fresh) {
    is_ended_ = true;
    free_.push_back(&piece);
    if (!fresh) fail(piece, fresh.error());
    return;
  }
  bytes_read_ += place->bytes;
  piece.undigested = *fresh;
  piece.uses = 1;
  undigested_.push_back(&piece);
  if (place->tensor == nullptr) return;
  piece.uses = 2;
  packable_.push_back(&piece);
}

void TensorLoader::take_digest(std::unique_lock<std::mutex>& lock) {
  Piece& piece = *undigested_.front();
  undigested_.pop_front();
  is_digesting_ = true;
  wake();
  lock.unlock();
  file_->take_digest(piece.undigested);
  lock.lock();
  is_digesting_ = false;
  release(piece);
}

// Pieces write to bytes of their own: of a panel that two of them share, each to its rows' lanes.
void TensorLoader::pack(std::unique_lock<std::mutex>& lock, Converter& converter) {
  Piece& piece = *packable_.front();
  packable_.pop_front();
  wake();
  lock.unlock();
  bool is_wide = false;
  const bool is_good = convert_and_put(piece, converter, is_wide);
  lock.lock();
  const TensorInfo& tensor = *piece.place.tensor;
  if (is_wide) wide_.insert(tensor.name);
  if (!is_good)
    fail(piece, file_->error("tensor '" + printable(tensor.name) +
                             "' holds values that are not finite, or too large for its type"));
  release(piece);
}

bool TensorLoader::convert_and_put(const Piece& piece, Converter& converter, bool& is_wide) {
  const Place& place = piece.place;
  const std::size_t row_bytes = row_bytes_of(*place.tensor);
  return std::ranges::all_of(place.planned->placements, [&](const Placement& placement) {
    const krn::WeightType wanted = plan_.regions[placement.region].type;
    const auto rows = converter.convert(*place.tensor, piece.bytes, wanted, is_wide);
    if (!rows) return false;
    put(rows->data, rows->type, placement, place.at / row_bytes, piece.bytes.size() / row_bytes,
        place.tensor->shape.back());
    return true;
  });
}

// A thread that waits for free pieces is not woken for each of them, but when half are free.
void TensorLoader::release(Piece& piece) {
  if (--piece.uses > 0) return;
  free_.push_back(&piece);
  if (2 * free_.size() >= pieces_.size()) reads_on_ = true;
}

void TensorLoader::fail(const Piece& piece, Error error) {
  is_ended_ = true;
  if (failure_ && failure_number_ < piece.number) return;
  failure_number_ = piece.number;
  failure_ = std::move(error);
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
