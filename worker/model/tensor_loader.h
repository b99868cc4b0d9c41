// TensorLoader: reads the tensors of model files and puts them where a WeightPlan says, on several
// threads that are all alike. Whoever is free takes what there is to do: the digest of the next
// piece, which goes first, because the digest of a file is one chain that no second thread can
// shorten; or the next read; or converting and packing a piece. One thread at a time reads and one
// takes digests, both front to back. So nobody waits while there is work, and there are no more
// threads than asked for. A piece (256 KiB, one panel or one row) is used again when its digest is
// taken and it is packed: memory stays at a fixed number of pieces.
//
// Of several errors the one of the earliest piece counts, whatever the threads did.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "worker/model/model_file.h"
#include "worker/model/weight_plan.h"

namespace sluice::eng {

class TensorLoader {
 public:
  // Called on the caller's thread while it goes on: so many more bytes were read.
  using OnRead = std::function<void(std::uint64_t bytes)>;

  // The plan and its memory outlive the object. threads: at least 1, the caller's included.
  TensorLoader(const WeightPlan& plan, std::uint8_t* memory, std::size_t threads);
  ~TensorLoader();
  TensorLoader(const TensorLoader&) = delete;
  TensorLoader& operator=(const TensorLoader&) = delete;

  // The file stands at or before its first data byte. When this returns without an error it is read
  // to its end, its digest covers it all, and its tensors are in their places. After an error
  // nothing more can be read.
  Result<void> read_tensors(ModelFile& file, const Shard& shard, const OnRead& on_read);
  // Quantized tensors that need F32 and did not have it: what was loaded is of no use.
  const std::set<std::string>& wide() const { return wide_; }

 private:
  struct Place {
    const TensorInfo* tensor = nullptr;  // null: of no tensor, for the digest alone
    const ExpectedTensor* planned = nullptr;
    std::uint64_t at = 0;     // in bytes, of the tensor
    std::uint64_t bytes = 0;  // of the piece
  };
  struct Piece {
    Place place;
    std::uint64_t number = 0;
    std::vector<std::uint8_t> memory;  // only grows
    std::span<const std::uint8_t> bytes;
    std::span<const std::uint8_t> undigested;
    int uses = 0;  // still to be done with it
  };
  enum class Task : std::uint8_t { digest, read, pack, wait, leave };
  class Converter;

  static std::uint64_t piece_bytes(const TensorInfo& tensor);
  std::optional<Place> next_place();
  // on_read: null but for the caller's thread.
  void work(const OnRead* on_read);
  Task choose() const;
  void wake();
  void read(std::unique_lock<std::mutex>& lock);
  void take_digest(std::unique_lock<std::mutex>& lock);
  void pack(std::unique_lock<std::mutex>& lock, Converter& converter);
  bool convert_and_put(const Piece& piece, Converter& converter, bool& is_wide);
  void put(const void* rows, krn::WeightType type, const Placement& placement,
           std::size_t first_row, std::size_t num_rows, std::size_t num_cols);
  void release(Piece& piece);
  void fail(const Piece& piece, Error error);

  const WeightPlan& plan_;
  std::uint8_t* memory_;
  const std::size_t num_threads_;
  std::vector<Piece> pieces_;

  // Of the file that is being read; what changes is that thread's that reads.
  ModelFile* file_ = nullptr;
  const Shard* shard_ = nullptr;
  std::size_t next_tensor_ = 0;
  std::uint64_t next_number_ = 0;

  std::mutex mutex_;  // guards what follows, and the uses of pieces
  std::condition_variable has_work_;
  std::size_t num_waiting_ = 0;
  std::deque<Piece*> undigested_;  // in the order of reading, as the next
  std::deque<Piece*> packable_;
  std::vector<Piece*> free_;
  bool is_reading_ = false;
  bool is_digesting_ = false;
  bool is_ended_ = false;         // nothing more is to be read of this file
  bool reads_on_ = true;          // false when no piece was free, until release() says so
  std::uint64_t bytes_read_ = 0;  // of this file
  std::set<std::string> wide_;
  std::optional<Error> failure_;
  std::uint64_t failure_number_ = 0;
};

}  // namespace sluice::eng
