// GgufFile: the header of a GGUF file on disk, with the bytes that it points into. For those that
// need the metadata alone (vocabulary, template, sampling defaults); the worker reads and hashes
// the whole file itself. Reads no more than the header needs, rounded up. Constant after reading.
#pragma once

#include <memory>
#include <string>

#include "shared/gguf.h"

namespace sluice {

// Bytes that are tried first; doubled while the header goes on behind them.
inline constexpr std::uint64_t kGgufPrefixBytes = 1u << 20;

// By its first bytes; false for what can't be read.
bool is_gguf_file(const std::string& path);

class GgufFile {
 public:
  // Errors: bad_file and io_error, with the path.
  static Result<GgufFile> read(const std::string& path);
  GgufFile(GgufFile&&) noexcept = default;
  GgufFile& operator=(GgufFile&&) noexcept = default;

  const GgufHeader& header() const { return header_; }

 private:
  GgufFile(std::unique_ptr<std::string> bytes, GgufHeader header)
      : bytes_(std::move(bytes)), header_(std::move(header)) {}

  std::unique_ptr<std::string> bytes_;  // at a fixed place: header_ points into it
  GgufHeader header_;
};

}  // namespace sluice
