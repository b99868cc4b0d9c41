// The GGUF header as hostile input: what good files say is read; each count, length, size and
// offset that lies is refused with the key or tensor and the reason; every prefix asks for more,
// every truncation is refused, no flipped bit does harm.
#include "shared/gguf.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "shared/gguf_file.h"
#include "tests/support/gguf_bytes.h"

namespace sluice {
namespace {

using test::append_gguf_text;
using test::append_number;
using test::GgufBytes;

GgufBytes good() {
  GgufBytes file;
  file.text("general.architecture", "llama").u32("llama.block_count", 2).f32("eps", 1e-5f);
  file.flag("yes", true).i32("minus", -3).u64("large", 1ull << 40);
  file.texts("words", {"a", "", "ccc"}).floats("scores", {0.5f, -1}).integers("types", {1, -2, 3});
  file.tensors = {{"first", {4, 2}, 0, std::string(32, 'a'), {}},
                  {"second", {32}, 8, std::string(34, 'b'), {}},
                  {"third", {256, 3}, 12, std::string(432, 'c'), {}}};
  return file;
}

// The error's text; "read" without one. The whole file is given.
std::string outcome(const std::string& bytes) {
  const auto header = parse_gguf_header(bytes, bytes.size());
  if (!header) {
    EXPECT_EQ(header.error().code, Errc::bad_file);
    return header.error().detail;
  }
  if (!*header) return "more";
  test::check_gguf_header(**header, bytes.size(), bytes.size());
  return "read";
}

GgufHeader header_of(const std::string& bytes) {
  return std::move(**parse_gguf_header(bytes, bytes.size()));
}

TEST(Gguf, ReadsKeysOfEveryType) {
  const std::string bytes = good().bytes();
  const GgufHeader header = header_of(bytes);
  EXPECT_EQ(header.version, 3u);
  EXPECT_EQ(header.find("general.architecture")->text(), "llama");
  EXPECT_EQ(header.find("llama.block_count")->unsigned_number(), 2u);
  EXPECT_EQ(header.find("llama.block_count")->number(), 2.0);
  EXPECT_EQ(header.find("eps")->number(), static_cast<double>(1e-5f));
  EXPECT_EQ(header.find("eps")->unsigned_number(), std::nullopt);
  EXPECT_EQ(header.find("yes")->flag(), true);
  EXPECT_EQ(header.find("minus")->unsigned_number(), std::nullopt);
  EXPECT_EQ(header.find("minus")->number(), -3.0);
  EXPECT_EQ(header.find("large")->unsigned_number(), 1ull << 40);
  EXPECT_EQ(header.find("words")->texts(), (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(header.find("words")->integers(), std::nullopt);
  EXPECT_EQ(header.find("scores")->floats(), (std::vector<float>{0.5f, -1}));
  EXPECT_EQ(header.find("scores")->texts(), std::nullopt);
  EXPECT_EQ(header.find("types")->integers(), (std::vector<std::int32_t>{1, -2, 3}));
  EXPECT_EQ(header.find("types")->floats(), std::nullopt);
  EXPECT_EQ(header.find("absent"), nullptr);
}

TEST(Gguf, ReadsIntegersOfEveryWidthAndTheirLimits) {
  GgufBytes file;
  file.number<std::uint8_t>("u8", GgufValueType::u8, 255);
  file.number<std::int8_t>("i8", GgufValueType::i8, -1);
  file.number<std::uint16_t>("u16", GgufValueType::u16, 65535);
  file.number<std::int16_t>("i16", GgufValueType::i16, 7);
  file.number<std::int64_t>("i64", GgufValueType::i64, INT64_MIN);
  file.u64("u64", UINT64_MAX);
  file.number<double>("f64", GgufValueType::f64, 0.25);
  file.numbers<std::uint8_t>("bytes", GgufValueType::u8, {0, 255});
  file.numbers<std::uint32_t>("wide", GgufValueType::u32, {1u << 31});
  file.numbers<std::uint64_t>("huge", GgufValueType::u64, {UINT64_MAX});
  file.raw("two", GgufValueType::boolean, "\x02");
  const std::string bytes = file.bytes();
  const GgufHeader header = header_of(bytes);
  EXPECT_EQ(header.find("u8")->unsigned_number(), 255u);
  EXPECT_EQ(header.find("i8")->unsigned_number(), std::nullopt);
  EXPECT_EQ(header.find("u16")->unsigned_number(), 65535u);
  EXPECT_EQ(header.find("i16")->unsigned_number(), 7u);
  EXPECT_EQ(header.find("i64")->number(), -0x1p63);
  EXPECT_EQ(header.find("u64")->unsigned_number(), UINT64_MAX);
  EXPECT_EQ(header.find("f64")->number(), 0.25);
  EXPECT_EQ(header.find("bytes")->integers(), (std::vector<std::int32_t>{0, 255}));
  EXPECT_EQ(header.find("wide")->integers(), std::nullopt);
  EXPECT_EQ(header.find("huge")->integers(), std::nullopt);
  EXPECT_EQ(header.find("two")->flag(), std::nullopt);
}

TEST(Gguf, ReadsTensorsInTheOrderOfTheirData) {
  GgufBytes file = good();
  std::swap(file.tensors[0], file.tensors[2]);
  file.tensors[0].offset = 96;
  file.tensors[1].offset = 32;
  file.tensors[2].offset = 0;
  for (GgufBytes::Tensor& tensor : file.tensors) tensor.data.clear();
  file.tensors[2].data = std::string(96 + 432, 'x');
  const std::string bytes = file.bytes();
  const GgufHeader header = header_of(bytes);
  ASSERT_EQ(header.tensors.size(), 3u);
  EXPECT_EQ(header.tensors[0].name, "first");
  EXPECT_EQ(header.tensors[2].name, "third");
  EXPECT_EQ(header.tensors[2].type->name, "Q4_K");
  EXPECT_EQ(header.tensors[2].dims, (std::array<std::uint64_t, 4>{256, 3, 1, 1}));
  EXPECT_EQ(header.tensors[2].bytes, 432u);
  EXPECT_EQ(header.data_begin % 32, 0u);
  EXPECT_EQ(header.data_begin + 96 + 432, bytes.size());
}

TEST(Gguf, HonoursTheAlignmentKey) {
  GgufBytes file = good();
  file.alignment = 128;
  EXPECT_NE(outcome(file.bytes()), "read");
  file.u32("general.alignment", 128);
  const std::string bytes = file.bytes();
  ASSERT_EQ(outcome(bytes), "read");
  EXPECT_EQ(header_of(bytes).tensors[1].offset, 128u);
  for (const std::uint32_t wrong : {0u, 1u, 4u, 24u, 1u << 17}) {
    GgufBytes other = good();
    other.u32("general.alignment", wrong);
    EXPECT_EQ(outcome(other.bytes()),
              "key 'general.alignment' must be a power of two from 8 to 65536");
  }
}

TEST(Gguf, ReadsVersions2And3AndNamesOthers) {
  GgufBytes file = good();
  file.version = 2;
  EXPECT_EQ(outcome(file.bytes()), "read");
  file.version = 1;
  EXPECT_EQ(outcome(file.bytes()), "has GGUF version 1; versions 2 and 3 are read");
  file.version = 0x03000000;
  EXPECT_EQ(outcome(file.bytes()), "is a big-endian GGUF file; only little-endian ones are read");
  EXPECT_EQ(outcome("GGML" + std::string(100, '\0')), "is not a GGUF file");
  EXPECT_EQ(outcome(""), "the first word reaches beyond the file of 0 bytes");
}

constexpr std::uint64_t kHuge = UINT64_MAX;

struct Lie {
  const char* what;
  std::function<void(GgufBytes&)> tell;
  const char* answer;  // the beginning of it
};

TEST(Gguf, RefusesEveryLieWithItsNameAndReason) {
  const auto entry = [](GgufBytes& file, GgufValueType type, std::uint64_t count, auto... rest) {
    std::string bytes = GgufBytes::array_head(type, count);
    (append_number(rest, bytes), ...);
    file.raw("list", GgufValueType::array, bytes);
  };
  const std::vector<Lie> lies = {
      {"keys near 2^64", [](GgufBytes& f) { f.num_keys = kHuge; },
       "names 18446744073709551615 keys, at most 4096"},
      {"tensors near 2^64", [](GgufBytes& f) { f.num_tensors = kHuge; },
       "names 18446744073709551615 tensors, at most 32768"},
      {"100,000 tensors", [](GgufBytes& f) { f.num_tensors = 100'000; }, "names 100000 tensors"},
      {"one key too many", [](GgufBytes& f) { f.num_keys = f.entries.size() + 1; },
       "the name of a tensor reaches"},
      {"a key's length near 2^64",
       [](GgufBytes& f) {
         std::string bytes;
         append_number(kHuge - 7, bytes);
         f.entries[0] = bytes + "general.architecture";
       },
       "the name of a key reaches beyond the file of"},
      {"an empty key", [](GgufBytes& f) { f.u32("", 1); }, "key '' must have 1 to 256 bytes"},
      {"a key of a million bytes", [](GgufBytes& f) { f.u32(std::string(1'000'000, 'k'), 1); },
       "key 'kkkkk"},
      {"a text's length near 2^64",
       [](GgufBytes& f) {
         std::string bytes;
         append_number(kHuge, bytes);
         f.raw("k", GgufValueType::string, bytes);
       },
       "key 'k' reaches beyond the file"},
      {"an unknown value type",
       [](GgufBytes& f) { f.raw("k", static_cast<GgufValueType>(13), ""); },
       "key 'k' has a value of an unknown type"},
      {"a type with the highest bit",
       [](GgufBytes& f) { f.raw("k", static_cast<GgufValueType>(0x80000000u), "aaaa"); },
       "key 'k' has a value of an unknown type"},
      {"an array's count near 2^64", [&](GgufBytes& f) { entry(f, GgufValueType::u8, kHuge); },
       "key 'list' reaches beyond the file"},
      {"an array's bytes that wrap to few",
       [&](GgufBytes& f) { entry(f, GgufValueType::f64, (1ull << 61) + 1, 1.0); },
       "key 'list' reaches beyond the file"},
      {"a count of texts near 2^64",
       [&](GgufBytes& f) { entry(f, GgufValueType::string, kHuge, std::uint64_t{0}); },
       "key 'list' reaches beyond the file"},
      {"an array of arrays",
       [&](GgufBytes& f) { entry(f, GgufValueType::array, 1, std::uint32_t{4}, std::uint64_t{0}); },
       "key 'list' is an array of arrays or of an unknown type"},
      {"an array of an unknown type",
       [&](GgufBytes& f) { entry(f, static_cast<GgufValueType>(77), 1); },
       "key 'list' is an array of arrays or of an unknown type"},
      {"a key twice", [](GgufBytes& f) { f.u32("eps", 1); }, "key 'eps' appears twice"},
      {"a tensor twice", [](GgufBytes& f) { f.tensors[2].name = "first"; },
       "tensor 'first' appears twice"},
      {"a tensor without a name", [](GgufBytes& f) { f.tensors[1].name = ""; },
       "tensor '' must have"},
      {"a tensor's name too long", [](GgufBytes& f) { f.tensors[1].name = std::string(65, 'n'); },
       "tensor 'nnnnn"},
      {"names with control characters",
       [](GgufBytes& f) {
         f.tensors[1].name = "\x1b[2J\n";
         f.tensors[1].type = 5;
       },
       "tensor '?[2J?' has the unknown type 5"},
      {"no dimension", [](GgufBytes& f) { f.tensors[0].dims = {}; },
       "tensor 'first' must have 1 to 4 dimensions"},
      {"five dimensions",
       [](GgufBytes& f) {
         f.tensors[0].dims = {1, 1, 1, 1, 1};
       },
       "tensor 'first' must have 1 to 4 dimensions"},
      {"a dimension of 0",
       [](GgufBytes& f) {
         f.tensors[0].dims = {4, 0};
       },
       "tensor 'first' has a dimension of size 0"},
      {"elements that wrap to 0",
       [](GgufBytes& f) {
         f.tensors[0].dims = {1ull << 32, 1ull << 32};
       },
       "tensor 'first' has a size that overflows 64 bits"},
      {"elements that wrap to 8",
       [](GgufBytes& f) {
         f.tensors[0].dims = {(1ull << 61) + 1, 8, 1ull << 3};
       },
       "tensor 'first' has a size that overflows 64 bits"},
      {"bytes that wrap",
       [](GgufBytes& f) {
         f.tensors[0].dims = {1ull << 62, 3};
       },
       "tensor 'first' has a size that overflows 64 bits"},
      {"blocks whose bytes wrap",
       [](GgufBytes& f) {
         f.tensors[1].dims = {1ull << 63};
         f.tensors[1].type = 14;
       },
       "tensor 'second' (offset 32"},
      {"half a block", [](GgufBytes& f) { f.tensors[1].dims = {33}; },
       "tensor 'second' has rows of 33 elements, not a multiple of a block of Q8_0"},
      {"rows that share a block",
       [](GgufBytes& f) {
         f.tensors[1].dims = {16, 2};
       },
       "tensor 'second' has rows of 16 elements"},
      {"an unknown tensor type", [](GgufBytes& f) { f.tensors[1].type = 4; },
       "tensor 'second' has the unknown type 4"},
      {"an offset behind the file", [](GgufBytes& f) { f.tensors[2].offset = 1ull << 40; },
       "tensor 'third' (offset 1099511627776, 432 bytes) is not within the"},
      {"an offset near 2^64", [](GgufBytes& f) { f.tensors[2].offset = kHuge - 31; },
       "tensor 'third' (offset 18446744073709551584"},
      {"an unaligned offset",
       [](GgufBytes& f) {
         f.tensors[0].offset = 1;
         f.tensors[1].offset = 33;
       },
       "tensor 'first' does not begin at a multiple of the alignment 32"},
      {"overlapping tensors", [](GgufBytes& f) { f.tensors[2].offset = 64; },
       "tensor 'third' overlaps another tensor"},
      {"two tensors at one place", [](GgufBytes& f) { f.tensors[1].offset = 0; },
       "tensor 'second' overlaps another tensor"},
      {"a hole",
       [](GgufBytes& f) {
         f.tensors.erase(f.tensors.begin() + 1);
         f.tensors[1].offset = 32 + 64;
         f.tensors[1].data = std::string(512, 'c');
       },
       "tensor 'third' has a hole before it"},
      {"more data than tensors", [](GgufBytes& f) { f.tensors[2].data += std::string(64, 'x'); },
       "behind the last tensor lie"},
  };
  for (const Lie& lie : lies) {
    GgufBytes file = good();
    lie.tell(file);
    const std::string answer = outcome(file.bytes());
    EXPECT_EQ(answer.substr(0, std::strlen(lie.answer)), lie.answer) << lie.what;
    EXPECT_LT(answer.size(), 400u) << lie.what;
  }
}

TEST(Gguf, APrefixAsksForMoreUntilTheHeaderIsThere) {
  const std::string bytes = good().bytes();
  const std::uint64_t data_begin = header_of(bytes).data_begin;
  bool was_there = false;
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    const auto header = parse_gguf_header(std::string_view(bytes).substr(0, size), bytes.size());
    ASSERT_TRUE(header.has_value()) << size << ": " << header.error().detail;
    ASSERT_TRUE(!was_there || *header) << size;
    was_there = header->has_value();
    ASSERT_TRUE(!was_there || (*header)->tensors.size() == 3u);
    ASSERT_TRUE(size < data_begin || was_there);
  }
  EXPECT_TRUE(was_there);
}

TEST(Gguf, AHeaderWithoutAnEndIsRefusedAtItsLimit) {
  GgufBytes endless;
  std::string value;
  append_number<std::uint64_t>(1ull << 39, value);
  endless.raw("long", GgufValueType::string, value);
  std::string prefix = endless.bytes();
  EXPECT_FALSE(*parse_gguf_header(prefix, 1ull << 40));
  prefix.resize(kGgufHeaderMax, 'x');
  const auto refused = parse_gguf_header(prefix, 1ull << 40);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().detail, "has a header of more than 67108864 bytes");
}

TEST(Gguf, EveryTruncationIsRefused) {
  const std::string bytes = good().bytes();
  for (std::size_t size = 0; size < bytes.size(); ++size)
    ASSERT_NE(outcome(bytes.substr(0, size)), "read") << size;
  EXPECT_EQ(outcome(bytes + std::string(15, '\0')), "read");  // padding of the last tensor
  EXPECT_NE(outcome(bytes + std::string(33, '\0')), "read");
}

TEST(Gguf, EveryFlippedBitIsReadOrRefused) {
  const std::string bytes = good().bytes();
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < header_of(bytes).data_begin * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    const std::string answer = outcome(damaged);
    ASSERT_NE(answer, "more");
    refused += answer == "read" ? 0 : 1;
  }
  EXPECT_GT(refused, 1000u);
}

class Files : public testing::Test {
 protected:
  Files() : path_(testing::TempDir() + "gguf_file_" + std::to_string(::getpid())) {}
  ~Files() override { std::filesystem::remove_all(path_); }
  void write(const std::string& bytes) { std::ofstream(path_, std::ios::binary) << bytes; }

  std::string path_;
};

TEST_F(Files, TheHeaderOfAFileIsReadWhateverItsLength) {
  for (const std::size_t length : {10u, 1'048'576u, 3'000'000u}) {
    GgufBytes file = good();
    file.text("long", std::string(length, 'x'));
    write(file.bytes());
    EXPECT_TRUE(is_gguf_file(path_));
    const auto read = GgufFile::read(path_);
    ASSERT_TRUE(read.has_value()) << read.error().detail;
    EXPECT_EQ(read->header().find("long")->text()->size(), length);
    EXPECT_EQ(read->header().tensors.size(), 3u);
  }
}

TEST_F(Files, ErrorsNameTheFile) {
  EXPECT_FALSE(is_gguf_file(path_));
  EXPECT_EQ(GgufFile::read(path_).error().detail, path_ + ": No such file or directory");
  write("GGU");
  EXPECT_FALSE(is_gguf_file(path_));
  EXPECT_EQ(GgufFile::read(path_).error().detail,
            path_ + ": the first word reaches beyond the file of 3 bytes");
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_FALSE(is_gguf_file(path_));
  EXPECT_EQ(GgufFile::read(path_).error().detail, path_ + ": is not a regular file");
}

}  // namespace
}  // namespace sluice
