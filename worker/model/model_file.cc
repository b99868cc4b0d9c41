// Reading with POSIX calls, hashing with OpenSSL's EVP.
#include "worker/model/model_file.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluice::eng {

Sha256 sha256_of(std::string_view bytes) {
  Sha256 digest{};
  CHECK(EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr) == 1);
  return digest;
}

std::string hex_of(const Sha256& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const std::uint8_t byte : digest) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kShown = 96;
  std::string out(text.substr(0, kShown));
  for (char& c : out) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  if (text.size() > kShown) out += "...";
  return out;
}

void ModelFile::FreeContext::operator()(evp_md_ctx_st* context) const {
  EVP_MD_CTX_free(context);
}

ModelFile::ModelFile(UniqueFd fd, std::string name, std::uint64_t bytes)
    : fd_(std::move(fd)), name_(std::move(name)), bytes_(bytes), hash_(EVP_MD_CTX_new()) {
  CHECK(hash_ != nullptr && EVP_DigestInit_ex(hash_.get(), EVP_sha256(), nullptr) == 1);
}

ModelFile::ModelFile(ModelFile&&) noexcept = default;
ModelFile& ModelFile::operator=(ModelFile&&) noexcept = default;
ModelFile::~ModelFile() = default;

Error ModelFile::error(std::string reason) const {
  return make_error(Errc::bad_file, printable(name_) + ": " + std::move(reason));
}

Result<ModelFile> ModelFile::open(const std::string& directory, const std::string& name) {
  const std::string path = directory + "/" + name;
  // Non-blocking, so that a FIFO in the directory can't hold the start up; no effect on files.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) {
    return make_error(Errc::io_error,
                      printable(name) + ": cannot be opened: " + std::strerror(errno));
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return make_error(Errc::bad_file, printable(name) + ": is not a regular file");
  }
  return ModelFile(std::move(fd), name, static_cast<std::uint64_t>(status.st_size));
}

// What was read so far ends at `begin`.
Result<void> ModelFile::read_fresh(std::uint64_t begin, std::span<std::uint8_t> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::read(fd_.get(), out.data() + done, out.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return make_error(Errc::io_error, printable(name_) + ": " + std::strerror(errno));
    if (n == 0) {
      return error("ends at byte " + std::to_string(begin + done) + ", expected " +
                   std::to_string(begin + out.size()));
    }
    done += static_cast<std::size_t>(n);
  }
  return {};
}

void ModelFile::take_digest(std::span<const std::uint8_t> bytes) {
  CHECK(EVP_DigestUpdate(hash_.get(), bytes.data(), bytes.size()) == 1);
}

Result<void> ModelFile::read(std::span<std::uint8_t> out) {
  const auto fresh = read_undigested(out);
  if (!fresh) return fresh.error();
  take_digest(*fresh);
  return {};
}

Result<std::span<const std::uint8_t>> ModelFile::read_undigested(std::span<std::uint8_t> out) {
  const std::uint64_t ahead_end = ahead_begin_ + ahead_.size();
  std::size_t known = 0;
  if (position_ < ahead_end) {
    known = std::min<std::uint64_t>(out.size(), ahead_end - position_);
    std::memcpy(out.data(), ahead_.data() + (position_ - ahead_begin_), known);
  }
  const std::span<std::uint8_t> fresh = out.subspan(known);
  if (!fresh.empty()) {
    const Result<void> read = read_fresh(std::max(position_, ahead_end), fresh);
    if (!read) return read.error();
  }
  position_ += out.size();
  return std::span<const std::uint8_t>(fresh);
}

Result<void> ModelFile::skip_to(std::uint64_t position) {
  CHECK(position >= position_);
  std::array<std::uint8_t, 4096> ignored;
  while (position_ < position) {
    const std::size_t step = std::min<std::uint64_t>(ignored.size(), position - position_);
    if (auto skipped = read(std::span(ignored).first(step)); !skipped) return skipped;
  }
  return {};
}

Result<std::string_view> ModelFile::peek(std::uint64_t count) {
  if (position_ >= ahead_begin_ + ahead_.size()) {
    ahead_.clear();
    ahead_begin_ = position_;
  }
  const std::size_t used = position_ - ahead_begin_;
  const std::size_t wanted = used + std::min(count, bytes_ - std::min(bytes_, position_));
  if (const std::size_t known = ahead_.size(); wanted > known) {
    ahead_.resize(wanted);
    const auto fresh =
        std::span(reinterpret_cast<std::uint8_t*>(ahead_.data()), wanted).subspan(known);
    if (const Result<void> read = read_fresh(ahead_begin_ + known, fresh); !read) {
      ahead_.resize(known);
      return read.error();
    }
    take_digest(fresh);
  }
  return std::string_view(ahead_).substr(used, wanted - used);
}

Sha256 ModelFile::finish() {
  ahead_ = {};
  Sha256 digest{};
  CHECK(EVP_DigestFinal_ex(hash_.get(), digest.data(), nullptr) == 1);
  return digest;
}

Result<std::string> read_text_file(const std::string& directory, const std::string& name,
                                   std::uint64_t bytes_max, Sha256* digest) {
  Result<ModelFile> file = ModelFile::open(directory, name);
  if (!file) return file.error();
  if (file->bytes() > bytes_max) {
    return file->error(std::to_string(file->bytes()) + " bytes, at most " +
                       std::to_string(bytes_max) + " are allowed");
  }
  std::string text(file->bytes(), '\0');
  Result<void> read = file->read({reinterpret_cast<std::uint8_t*>(text.data()), text.size()});
  if (!read) return read.error();
  if (digest != nullptr) *digest = file->finish();
  return text;
}

}  // namespace sluice::eng
