// TensorLoader: reads the tensors of model files and puts them where a WeightPlan says. The
// caller's thread reads and hashes, front to back; `packers` threads convert and pack what was
// read. Pieces wait in a queue of fixed length, so memory stays at packers + 1 pieces (4 MiB, or
// one row).
//
// Of several errors the one of the earliest piece counts, whatever the threads did. One thread
// calls; what the packers write becomes visible to it with finish().
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "worker/model/model_file.h"
#include "worker/model/weight_plan.h"

namespace sluice::eng {

class TensorLoader {
 public:
  // The plan and its memory outlive the object. packers 0: the caller's thread packs, too.
  TensorLoader(const WeightPlan& plan, std::uint8_t* memory, std::size_t packers);
  ~TensorLoader();
  TensorLoader(const TensorLoader&) = delete;
  TensorLoader& operator=(const TensorLoader&) = delete;

  // The file stands at or before its first data byte; it is read to its end. The shard and the
  // file's name outlive finish(). on_read(bytes): so many more were read.
  template <class OnRead>
  Result<void> read_tensors(ModelFile& file, const Shard& shard, const OnRead& on_read) {
    for (const TensorInfo& tensor : shard.table.tensors) {
      std::uint64_t before = file.position();
      if (auto skipped = file.skip_to(shard.table.data_begin + tensor.offset); !skipped)
        return skipped;
      const auto planned = plan_.tensors.find(tensor.name);
      const bool is_used = planned != plan_.tensors.end() && tensor.bytes != 0;
      if (!is_used) continue;  // skipped with what is before the next one
      for (std::uint64_t at = 0; at < tensor.bytes; at += piece_bytes(tensor)) {
        if (auto read = read_piece(file, {&tensor, &planned->second, at}); !read) return read;
        on_read(file.position() - before);
        before = file.position();
      }
    }
    return file.skip_to(file.bytes());
  }

  // Waits for the packers. After it nothing can be read.
  Result<void> finish();
  // Quantized tensors that need F32 and did not have it: what was loaded is of no use.
  const std::set<std::string>& wide() const { return wide_; }

 private:
  struct Place {
    const TensorInfo* tensor;
    const ExpectedTensor* planned;
    std::uint64_t at;  // in bytes, of the tensor
  };
  struct Piece {
    Place place{};
    std::string file;
    std::uint64_t number = 0;
    std::vector<std::uint8_t> bytes;
  };
  class Converter;

  static std::uint64_t piece_bytes(const TensorInfo& tensor);
  Result<void> read_piece(ModelFile& file, const Place& place);
  void pack(Piece& piece, Converter& converter);
  void put(const void* rows, krn::WeightType type, const Placement& placement,
           std::size_t first_row, std::size_t num_rows, std::size_t num_cols);
  void run_packer();

  const WeightPlan& plan_;
  std::uint8_t* memory_;
  std::uint64_t next_number_ = 0;         // of the caller's thread
  std::unique_ptr<Converter> converter_;  // likewise
  std::vector<Piece> pieces_;
  std::vector<std::thread> packers_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable has_ready_, has_free_;
  std::deque<Piece*> ready_;
  std::vector<Piece*> free_;
  bool is_closed_ = false;
  std::set<std::string> wide_;
  std::optional<Error> failure_;
  std::uint64_t failure_number_ = 0;
};

}  // namespace sluice::eng
