// One pass over the header's bytes; see gguf.h.
#include "shared/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace sluice {
namespace {

static_assert(std::endian::native == std::endian::little,
              "values are read as they lie in the file");

constexpr std::uint64_t kAlignmentMin = 8;

constexpr std::array<GgufTensorType, 22> kTensorTypes{{
    {0, "F32", 1, 4},       {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},    {10, "Q2_K", 256, 84},  {11, "Q3_K", 256, 110},
    {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176}, {14, "Q6_K", 256, 210},
    {15, "Q8_K", 256, 292}, {20, "IQ4_NL", 32, 18}, {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1},       {25, "I16", 1, 2},      {26, "I32", 1, 4},
    {27, "I64", 1, 8},      {28, "F64", 1, 8},      {30, "BF16", 1, 2},
    {39, "MXFP4", 32, 17},
}};

// Of types of fixed size; 0 for strings, arrays and unknown numbers.
std::uint64_t scalar_bytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::u8:
    case GgufValueType::i8:
    case GgufValueType::boolean:
      return 1;
    case GgufValueType::u16:
    case GgufValueType::i16:
      return 2;
    case GgufValueType::u32:
    case GgufValueType::i32:
    case GgufValueType::f32:
      return 4;
    case GgufValueType::u64:
    case GgufValueType::i64:
    case GgufValueType::f64:
      return 8;
    case GgufValueType::string:
    case GgufValueType::array:
      return 0;
  }
  return 0;
}

template <class T>
T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

struct Integer {
  bool negative;
  std::uint64_t bits;  // two's complement
};

std::optional<Integer> integer_at(GgufValueType type, const char* from) {
  const auto with_sign = [](std::int64_t v) {
    return Integer{v < 0, static_cast<std::uint64_t>(v)};
  };
  switch (type) {
    case GgufValueType::u8:
      return Integer{false, load<std::uint8_t>(from)};
    case GgufValueType::u16:
      return Integer{false, load<std::uint16_t>(from)};
    case GgufValueType::u32:
      return Integer{false, load<std::uint32_t>(from)};
    case GgufValueType::u64:
      return Integer{false, load<std::uint64_t>(from)};
    case GgufValueType::i8:
      return with_sign(load<std::int8_t>(from));
    case GgufValueType::i16:
      return with_sign(load<std::int16_t>(from));
    case GgufValueType::i32:
      return with_sign(load<std::int32_t>(from));
    case GgufValueType::i64:
      return with_sign(load<std::int64_t>(from));
    default:
      return std::nullopt;
  }
}

Error bad(std::string detail) {
  return make_error(Errc::bad_file, std::move(detail));
}

// Text of the file for a message: printable ASCII, at most 64 characters.
std::string shown(std::string_view text) {
  constexpr std::size_t kShown = 64;
  std::string out(text.substr(0, kShown));
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  if (text.size() > kShown) out += "...";
  return out;
}

Error bad_key(std::string_view key, const std::string& reason) {
  return bad("key '" + shown(key) + "' " + reason);
}

Error bad_tensor(std::string_view name, const std::string& reason) {
  return bad("tensor '" + shown(name) + "' " + reason);
}

// Takes values from the front. Once something is not there, everything after it fails as well:
// either the file has it behind the bytes given (is_short), or it is cut off.
class ByteReader {
 public:
  ByteReader(std::string_view bytes, std::uint64_t file_bytes)
      : bytes_(bytes), file_bytes_(file_bytes) {}

  bool take(std::uint64_t size, std::string_view& out) {
    if (failed_) return false;
    if (size > file_bytes_ - position_) return fail(false);
    if (size > bytes_.size() - position_) return fail(true);
    out = bytes_.substr(position_, size);
    position_ += size;
    return true;
  }
  template <class T>
  bool number(T& out) {
    std::string_view raw;
    if (!take(sizeof out, raw)) return false;
    out = load<T>(raw.data());
    return true;
  }
  bool string(std::string_view& out) {
    std::uint64_t size = 0;
    return number(size) && take(size, out);
  }
  std::uint64_t position() const { return position_; }
  bool is_short() const { return short_; }
  std::string_view since(std::uint64_t begin) const {
    return bytes_.substr(begin, position_ - begin);
  }
  Error cut_off(const std::string& what) const {
    return bad(what + " reaches beyond the file of " + std::to_string(file_bytes_) + " bytes");
  }

 private:
  bool fail(bool is_short) {
    failed_ = true;
    short_ = is_short;
    return false;
  }

  std::string_view bytes_;
  std::uint64_t file_bytes_;  // >= bytes_.size()
  std::uint64_t position_ = 0;
  bool failed_ = false;
  bool short_ = false;
};

// Walks an array's elements. False: not there, or of a type that arrays can't hold (`refused`).
bool take_array(ByteReader& reader, GgufValue& value, bool& refused) {
  if (!reader.number(value.element_type) || !reader.number(value.num_elements)) return false;
  const std::uint64_t begin = reader.position();
  const std::uint64_t size = scalar_bytes(value.element_type);
  if (value.element_type == GgufValueType::string) {
    std::string_view text;
    for (std::uint64_t i = 0; i < value.num_elements; ++i)
      if (!reader.string(text)) return false;
  } else if (size == 0) {
    refused = true;
    return false;
  } else {
    std::uint64_t total = 0;
    // A product beyond 64 bits lies beyond any file.
    if (__builtin_mul_overflow(size, value.num_elements, &total)) total = UINT64_MAX;
    std::string_view raw;
    if (!reader.take(total, raw)) return false;
  }
  value.bytes = reader.since(begin);
  return true;
}

Result<void> take_entry(ByteReader& reader, GgufHeader::Entry& entry) {
  if (!reader.string(entry.key)) return reader.cut_off("the name of a key");
  if (entry.key.empty() || entry.key.size() > kGgufKeyBytesMax)
    return bad_key(entry.key,
                   "must have 1 to " + std::to_string(kGgufKeyBytesMax) + " bytes in its name");
  GgufValue& value = entry.value;
  bool refused = false;
  bool taken = reader.number(value.type);
  if (taken && value.type == GgufValueType::array) {
    taken = take_array(reader, value, refused);
    if (refused) return bad_key(entry.key, "is an array of arrays or of an unknown type");
  } else if (taken && value.type == GgufValueType::string) {
    taken = reader.string(value.bytes);
  } else if (taken) {
    const std::uint64_t size = scalar_bytes(value.type);
    if (size == 0) return bad_key(entry.key, "has a value of an unknown type");
    taken = reader.take(size, value.bytes);
  }
  if (!taken) return reader.cut_off("key '" + shown(entry.key) + "'");
  return {};
}

Result<void> take_tensor(ByteReader& reader, GgufTensor& tensor) {
  if (!reader.string(tensor.name)) return reader.cut_off("the name of a tensor");
  if (tensor.name.empty() || tensor.name.size() > kGgufTensorNameMax)
    return bad_tensor(tensor.name, "must have 1 to 64 bytes in its name");
  const auto cut_off = [&] { return reader.cut_off("tensor '" + shown(tensor.name) + "'"); };
  if (!reader.number(tensor.num_dims)) return cut_off();
  if (tensor.num_dims < 1 || tensor.num_dims > kGgufDimsMax)
    return bad_tensor(tensor.name, "must have 1 to 4 dimensions");
  tensor.dims.fill(1);
  std::uint64_t elements = 1;
  for (std::uint32_t i = 0; i < tensor.num_dims; ++i) {
    if (!reader.number(tensor.dims[i])) return cut_off();
    if (tensor.dims[i] == 0) return bad_tensor(tensor.name, "has a dimension of size 0");
    if (__builtin_mul_overflow(elements, tensor.dims[i], &elements))
      return bad_tensor(tensor.name, "has a size that overflows 64 bits");
  }
  std::uint32_t type = 0;
  if (!reader.number(type) || !reader.number(tensor.offset)) return cut_off();
  tensor.type = find_gguf_tensor_type(type);
  if (tensor.type == nullptr)
    return bad_tensor(tensor.name, "has the unknown type " + std::to_string(type));
  if (tensor.dims[0] % tensor.type->num_elements != 0)
    return bad_tensor(tensor.name, "has rows of " + std::to_string(tensor.dims[0]) +
                                       " elements, not a multiple of a block of " +
                                       std::string(tensor.type->name));
  if (__builtin_mul_overflow(elements / tensor.type->num_elements,
                             std::uint64_t{tensor.type->bytes}, &tensor.bytes))
    return bad_tensor(tensor.name, "has a size that overflows 64 bits");
  return {};
}

// Sorts and checks what one entry alone can't show.
Result<void> check_entries(GgufHeader& header) {
  std::ranges::sort(header.entries, {}, &GgufHeader::Entry::key);
  const auto twin =
      std::ranges::adjacent_find(header.entries, std::ranges::equal_to{}, &GgufHeader::Entry::key);
  if (twin != header.entries.end()) return bad_key(twin->key, "appears twice");
  if (const GgufValue* value = header.find("general.alignment")) {
    const auto alignment = value->unsigned_number();
    if (!alignment || !std::has_single_bit(*alignment) || *alignment < kAlignmentMin ||
        *alignment > kGgufAlignmentMax)
      return bad_key("general.alignment", "must be a power of two from 8 to 65536");
    header.alignment = *alignment;
  }
  return {};
}

Result<void> check_layout(GgufHeader& header, std::uint64_t header_bytes,
                          std::uint64_t file_bytes) {
  std::vector<std::string_view> names;
  for (const GgufTensor& tensor : header.tensors) names.push_back(tensor.name);
  std::ranges::sort(names);
  const auto twin = std::ranges::adjacent_find(names);
  if (twin != names.end()) return bad_tensor(*twin, "appears twice");
  // Both are far below 2^64: the header fits its limit, every tensor below fits the file.
  const auto padded = [&](std::uint64_t n) {
    return (n + header.alignment - 1) / header.alignment * header.alignment;
  };
  header.data_begin = padded(header_bytes);
  if (header.tensors.empty()) return {};
  std::ranges::sort(header.tensors, [](const GgufTensor& a, const GgufTensor& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  const std::uint64_t data_bytes =
      file_bytes < header.data_begin ? 0 : file_bytes - header.data_begin;
  std::uint64_t end = 0;
  for (const GgufTensor& tensor : header.tensors) {
    if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset)
      return bad_tensor(tensor.name, "(offset " + std::to_string(tensor.offset) + ", " +
                                         std::to_string(tensor.bytes) +
                                         " bytes) is not within the " + std::to_string(data_bytes) +
                                         " data bytes of the file");
    if (tensor.offset < end) return bad_tensor(tensor.name, "overlaps another tensor");
    if (tensor.offset % header.alignment != 0)
      return bad_tensor(tensor.name, "does not begin at a multiple of the alignment " +
                                         std::to_string(header.alignment));
    if (tensor.offset != padded(end)) return bad_tensor(tensor.name, "has a hole before it");
    end = tensor.offset + tensor.bytes;
  }
  if (data_bytes > padded(end))
    return bad("behind the last tensor lie " + std::to_string(data_bytes - end) +
               " bytes that belong to none");
  return {};
}

Result<void> check_version(std::uint32_t version) {
  if (version == 2 || version == 3) return {};
  if (version == 0x02000000u || version == 0x03000000u)
    return bad("is a big-endian GGUF file; only little-endian ones are read");
  return bad("has GGUF version " + std::to_string(version) + "; versions 2 and 3 are read");
}

Result<GgufHeader> read_header(ByteReader& reader) {
  std::string_view magic;
  if (!reader.take(kGgufMagic.size(), magic)) return reader.cut_off("the first word");
  if (magic != kGgufMagic) return bad("is not a GGUF file");
  GgufHeader header;
  std::uint64_t num_tensors = 0;
  std::uint64_t num_keys = 0;
  if (!reader.number(header.version)) return reader.cut_off("the version");
  if (auto checked = check_version(header.version); !checked) return checked.error();
  if (!reader.number(num_tensors) || !reader.number(num_keys))
    return reader.cut_off("the number of tensors and keys");
  if (num_tensors > kGgufTensorsMax)
    return bad("names " + std::to_string(num_tensors) + " tensors, at most " +
               std::to_string(kGgufTensorsMax) + " are read");
  if (num_keys > kGgufKeysMax)
    return bad("names " + std::to_string(num_keys) + " keys, at most " +
               std::to_string(kGgufKeysMax) + " are read");
  for (std::uint64_t i = 0; i < num_keys; ++i)
    if (auto taken = take_entry(reader, header.entries.emplace_back()); !taken)
      return taken.error();
  if (auto checked = check_entries(header); !checked) return checked.error();
  for (std::uint64_t i = 0; i < num_tensors; ++i)
    if (auto taken = take_tensor(reader, header.tensors.emplace_back()); !taken)
      return taken.error();
  return header;
}

// The elements of an array through `read`, which may refuse one.
template <class T, class Read>
std::optional<std::vector<T>> elements_of(const GgufValue& value, Read read) {
  if (value.type != GgufValueType::array) return std::nullopt;
  const std::uint64_t size = scalar_bytes(value.element_type);
  if (size == 0) return std::nullopt;
  std::vector<T> elements;
  elements.reserve(value.num_elements);  // the header paid for each of them with bytes
  for (std::uint64_t i = 0; i < value.num_elements; ++i) {
    const std::optional<T> element = read(value.bytes.data() + i * size);
    if (!element) return std::nullopt;
    elements.push_back(*element);
  }
  return elements;
}

}  // namespace

const GgufTensorType* find_gguf_tensor_type(std::uint32_t number) {
  const auto found = std::ranges::find(kTensorTypes, number, &GgufTensorType::number);
  return found == kTensorTypes.end() ? nullptr : &*found;
}

std::optional<std::string_view> GgufValue::text() const {
  return type == GgufValueType::string ? std::optional(bytes) : std::nullopt;
}

std::optional<bool> GgufValue::flag() const {
  if (type != GgufValueType::boolean || static_cast<std::uint8_t>(bytes[0]) > 1)
    return std::nullopt;
  return bytes[0] == 1;
}

std::optional<std::uint64_t> GgufValue::unsigned_number() const {
  const auto integer = integer_at(type, bytes.data());
  if (!integer || integer->negative) return std::nullopt;
  return integer->bits;
}

std::optional<double> GgufValue::number() const {
  if (type == GgufValueType::f32) return static_cast<double>(load<float>(bytes.data()));
  if (type == GgufValueType::f64) return load<double>(bytes.data());
  const auto integer = integer_at(type, bytes.data());
  if (!integer) return std::nullopt;
  return integer->negative ? static_cast<double>(static_cast<std::int64_t>(integer->bits))
                           : static_cast<double>(integer->bits);
}

std::optional<std::vector<std::string_view>> GgufValue::texts() const {
  if (type != GgufValueType::array || element_type != GgufValueType::string) return std::nullopt;
  std::vector<std::string_view> list;
  list.reserve(num_elements);
  std::string_view rest = bytes;
  for (std::uint64_t i = 0; i < num_elements; ++i) {
    const auto size = load<std::uint64_t>(rest.data());
    list.push_back(rest.substr(sizeof size, size));
    rest.remove_prefix(sizeof size + size);
  }
  return list;
}

std::optional<std::vector<float>> GgufValue::floats() const {
  if (element_type != GgufValueType::f32) return std::nullopt;
  return elements_of<float>(*this,
                            [](const char* from) { return std::optional(load<float>(from)); });
}

std::optional<std::vector<std::int32_t>> GgufValue::integers() const {
  return elements_of<std::int32_t>(*this, [&](const char* from) -> std::optional<std::int32_t> {
    const auto integer = integer_at(element_type, from);
    if (!integer) return std::nullopt;
    const auto value = static_cast<std::int64_t>(integer->bits);
    const bool fits = value >= INT32_MIN && value <= INT32_MAX && (value < 0) == integer->negative;
    return fits ? std::optional(static_cast<std::int32_t>(value)) : std::nullopt;
  });
}

const GgufValue* GgufHeader::find(std::string_view key) const {
  const auto found = std::ranges::lower_bound(entries, key, {}, &Entry::key);
  return found != entries.end() && found->key == key ? &found->value : nullptr;
}

Result<std::optional<GgufHeader>> parse_gguf_header(std::string_view bytes,
                                                    std::uint64_t file_bytes) {
  CHECK(bytes.size() <= file_bytes);
  ByteReader reader(bytes, file_bytes);
  Result<GgufHeader> header = read_header(reader);
  if (reader.is_short()) {
    if (bytes.size() < kGgufHeaderMax) return std::optional<GgufHeader>();
    return bad("has a header of more than " + std::to_string(kGgufHeaderMax) + " bytes");
  }
  if (!header) return header.error();
  if (auto checked = check_layout(*header, reader.position(), file_bytes); !checked)
    return checked.error();
  return std::optional(std::move(*header));
}

}  // namespace sluice
