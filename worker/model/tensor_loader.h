// TensorLoader: reads the tensors of model files and puts them where a WeightPlan says. The
// caller's thread reads, front to back; one thread takes the files' digests of what was read, and
// `packers` threads convert and pack it. A piece (1 MiB, or one row) returns to the reader when
// both are done with it, so memory stays at a fixed number of pieces.
//
// Of several errors the one of the earliest piece counts, whatever the threads did. One thread
// calls; what the packers write becomes visible to it with finish().
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "worker/model/model_file.h"
#include "worker/model/weight_plan.h"

namespace sluice::eng {

class TensorLoader {
 public:
  // The plan and its memory outlive the object. packers 0: the caller's thread does everything.
  TensorLoader(const WeightPlan& plan, std::uint8_t* memory, std::size_t packers);
  ~TensorLoader();
  TensorLoader(const TensorLoader&) = delete;
  TensorLoader& operator=(const TensorLoader&) = delete;

  // The file stands at or before its first data byte; it is read to its end, and its digest covers
  // it all when this returns. The shard and the file outlive finish(). on_read(bytes): so many more
  // were read.
  template <class OnRead>
  Result<void> read_tensors(ModelFile& file, const Shard& shard, const OnRead& on_read) {
    for (const TensorInfo& tensor : shard.table.tensors) {
      std::uint64_t before = file.position();
      if (auto skipped = skip_to(file, shard.table.data_begin + tensor.offset); !skipped)
        return skipped;
      const auto planned = plan_.tensors.find(tensor.name);
      const bool is_used = planned != plan_.tensors.end() && tensor.bytes != 0;
      if (!is_used) continue;  // skipped with what is before the next one
      for (std::uint64_t at = 0; at < tensor.bytes; at += piece_bytes(tensor)) {
        const std::uint64_t bytes = std::min(piece_bytes(tensor), tensor.bytes - at);
        if (auto read = read_piece(file, {&tensor, &planned->second, at}, bytes); !read)
          return read;
        on_read(file.position() - before);
        before = file.position();
      }
    }
    if (auto skipped = skip_to(file, file.bytes()); !skipped) return skipped;
    wait_for_digest();
    return {};
  }

  // Waits for the threads. After it nothing can be read.
  Result<void> finish();
  // Quantized tensors that need F32 and did not have it: what was loaded is of no use.
  const std::set<std::string>& wide() const { return wide_; }

 private:
  struct Place {
    const TensorInfo* tensor = nullptr;  // null: of no tensor, for the digest alone
    const ExpectedTensor* planned = nullptr;
    std::uint64_t at = 0;  // in bytes, of the tensor
  };
  struct Piece {
    Place place;
    ModelFile* file = nullptr;
    std::uint64_t number = 0;
    std::vector<std::uint8_t> memory;  // only grows
    std::span<std::uint8_t> bytes;
    std::span<const std::uint8_t> undigested;
    int uses = 0;  // still to be done with it; guarded by mutex_
  };
  class Converter;

  static std::uint64_t piece_bytes(const TensorInfo& tensor);
  Result<void> skip_to(ModelFile& file, std::uint64_t position);
  Result<void> read_piece(ModelFile& file, const Place& place, std::size_t bytes);
  void wait_for_digest();
  void pack(Piece& piece, Converter& converter);
  void put(const void* rows, krn::WeightType type, const Placement& placement,
           std::size_t first_row, std::size_t num_rows, std::size_t num_cols);
  // Calls work(piece) for each piece of the queue until all are closed and done.
  template <class Work>
  void serve(std::deque<Piece*>& queue, std::condition_variable& has_some, const Work& work);

  const WeightPlan& plan_;
  std::uint8_t* memory_;
  std::uint64_t next_number_ = 0;         // of the caller's thread
  std::unique_ptr<Converter> converter_;  // likewise
  std::vector<Piece> pieces_;
  std::vector<std::thread> threads_;  // the digest's and the packers; none: packers is 0

  std::mutex mutex_;  // guards what follows
  std::condition_variable has_packable_, has_undigested_, has_free_;
  std::deque<Piece*> packable_;
  std::deque<Piece*> undigested_;   // in the order of reading
  std::size_t num_undigested_ = 0;  // those that a thread is at included
  std::vector<Piece*> free_;
  bool is_closed_ = false;
  std::set<std::string> wide_;
  std::optional<Error> failure_;
  std::uint64_t failure_number_ = 0;
};

}  // namespace sluice::eng
