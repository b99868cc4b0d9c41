// ModelFile: a regular file of a model directory, read front to back while its SHA-256 is taken, so
// that what was used is what was hashed. Read, not mapped: a file that is cut short under a mapping
// kills the process with SIGBUS, here it is an error; and the bytes can't change between hash and
// use.
//
// Every error says file and reason (Errc::bad_file, io_error). One thread, but for take_digest().
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "shared/result.h"
#include "shared/unique_fd.h"

struct evp_md_ctx_st;

namespace sluice::eng {

using Sha256 = std::array<std::uint8_t, 32>;

Sha256 sha256_of(std::string_view bytes);
std::string hex_of(const Sha256& digest);
// For messages: text from a file with what is not printable ASCII replaced, at most 96 characters.
std::string printable(std::string_view text);

class ModelFile {
 public:
  // `name` is relative to `directory` and appears in errors.
  static Result<ModelFile> open(const std::string& directory, const std::string& name);
  ModelFile(ModelFile&&) noexcept;
  ModelFile& operator=(ModelFile&&) noexcept;
  ~ModelFile();

  const std::string& name() const { return name_; }
  std::uint64_t bytes() const { return bytes_; }  // when it was opened
  std::uint64_t position() const { return position_; }
  // The next out.size() bytes; an error when the file ends before.
  Result<void> read(std::span<std::uint8_t> out);
  // The same, but the digest lags behind: of the bytes that are returned, the last of `out` (what
  // peek() saw is in it), the caller takes it with take_digest(), piece by piece in the order of
  // reading. That may be on another thread beside further calls of read_undigested(); all is
  // taken before another function reads or finish() is called.
  Result<std::span<const std::uint8_t>> read_undigested(std::span<std::uint8_t> out);
  void take_digest(std::span<const std::uint8_t> bytes);
  // Reads up to a position behind or at this one, for the digest alone.
  Result<void> skip_to(std::uint64_t position);
  // The next `count` bytes, or what the file has left, without taking them: read() gives the same
  // bytes again. Valid until the next peek(); kept until finish().
  Result<std::string_view> peek(std::uint64_t count);
  // Digest of all bytes read so far; ends reading.
  Sha256 finish();
  Error error(std::string reason) const;  // bad_file, "NAME: reason"

 private:
  struct FreeContext {
    void operator()(evp_md_ctx_st* context) const;
  };

  ModelFile(UniqueFd fd, std::string name, std::uint64_t bytes);
  Result<void> read_fresh(std::uint64_t begin, std::span<std::uint8_t> out);

  UniqueFd fd_;
  std::string name_;
  std::uint64_t bytes_ = 0;
  std::uint64_t position_ = 0;
  std::unique_ptr<evp_md_ctx_st, FreeContext> hash_;
  std::string ahead_;  // digested bytes from ahead_begin_ on
  std::uint64_t ahead_begin_ = 0;
};

// The whole file; an error when it is longer than bytes_max. Sets digest where one is given.
Result<std::string> read_text_file(const std::string& directory, const std::string& name,
                                   std::uint64_t bytes_max, Sha256* digest);

}  // namespace sluice::eng
