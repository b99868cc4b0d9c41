// Safetensors headers and shard indexes as hostile input: a table of damaged texts, each refused
// with its reason, beside the good ones that are accepted.
#include "worker/model/safetensors.h"

#include <gtest/gtest.h>

#include <array>

namespace sluice::eng {
namespace {

struct Row {
  const char* name;
  std::string json;
  std::uint64_t data_bytes;
  const char* reason;  // part of the message; empty: accepted
};

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  std::string text = "\"";
  text.append(name).append("\":{\"dtype\":\"").append(dtype).append("\",\"shape\":").append(shape);
  return text.append(",\"data_offsets\":").append(offsets).append("}");
}

std::string object(std::initializer_list<std::string> fields) {
  std::string text = "{";
  for (const std::string& field : fields) {
    if (text.size() > 1) text += ",";
    text += field;
  }
  return text + "}";
}

std::string many(std::size_t count) {
  std::string text = "{";
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0) text += ",";
    text += tensor(std::to_string(i), "F32", "[0]", "[0,0]");
  }
  return text + "}";
}

const std::vector<Row>& rows() {
  static const std::string good = tensor("a", "F32", "[2,3]", "[0,24]");
  static const std::vector<Row> table = {
      {"one tensor", object({good}), 24, ""},
      {"metadata", object({"\"__metadata__\":{\"format\":\"pt\"}", good}), 24, ""},
      {"two in any order", object({tensor("b", "F16", "[4]", "[24,32]"), good}), 32, ""},
      {"scalar", object({tensor("a", "BF16", "[]", "[0,2]")}), 2, ""},
      {"empty tensor",
       object({tensor("a", "F32", "[0,7]", "[0,0]"), tensor("b", "U8", "[1]", "[0,1]")}), 1, ""},
      {"no tensor", "{}", 0, ""},
      {"spaces after", object({good}) + "    ", 24, ""},
      {"not JSON", "{\"a\":", 0, "not valid JSON"},
      {"garbage after", object({good}) + "x", 24, "not valid JSON"},
      {"an array", "[]", 0, "not a JSON object"},
      {"deep", std::string(5000, '[') + std::string(5000, ']'), 0, "not valid JSON"},
      {"NUL bytes", std::string("{\0}", 3), 0, "not valid JSON"},
      {"not UTF-8", object({tensor("\xff\xfe", "F32", "[1]", "[0,4]")}), 4, "not valid JSON"},
      {"metadata is a list", "{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
      {"tensor is a number", "{\"a\":1}", 0, "'a': is not an object"},
      {"empty name", object({tensor("", "F32", "[1]", "[0,4]")}), 4, "1 to 512 bytes"},
      {"long name", object({tensor(std::string(513, 'n'), "F32", "[1]", "[0,4]")}), 4,
       "1 to 512 bytes"},
      {"no dtype", "{\"a\":{\"x\":1,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "has no dtype"},
      {"a fourth field", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}",
       4, "alone"},
      {"a field twice",
       "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
       "alone"},
      {"unknown dtype", object({tensor("a", "F31", "[1]", "[0,4]")}), 4, "unknown dtype 'F31'"},
      {"shape is a number", object({tensor("a", "F32", "1", "[0,4]")}), 4, "shape is not an array"},
      {"nine dimensions", object({tensor("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]")}), 4,
       "at most 8"},
      {"negative dimension", object({tensor("a", "F32", "[-1]", "[0,4]")}), 4, "unsigned integers"},
      {"fractional dimension", object({tensor("a", "F32", "[1.5]", "[0,4]")}), 4,
       "unsigned integers"},
      {"dimension over 64 bits", object({tensor("a", "F32", "[99999999999999999999]", "[0,4]")}), 4,
       ""},
      {"product overflows to 4", object({tensor("a", "F32", "[4294967297,4294967297]", "[0,4]")}),
       4, "overflows"},
      {"product overflows to 0", object({tensor("a", "F32", "[4294967296,4294967296]", "[0,0]")}),
       0, "overflows"},
      {"element size overflows", object({tensor("a", "F64", "[4611686018427387904]", "[0,0]")}), 0,
       "overflows"},
      {"overflow before a zero", object({tensor("a", "F32", "[4294967296,4294967296,0]", "[0,0]")}),
       0, "overflows"},
      {"offsets reversed", object({tensor("a", "F32", "[1]", "[4,0]")}), 4, "not within"},
      {"offsets beyond the file", object({tensor("a", "F32", "[2]", "[0,8]")}), 4,
       "not within the 4 data bytes"},
      {"offsets near 2^64",
       object({tensor("a", "F32", "[1]", "[18446744073709551612,18446744073709551615]")}), 4,
       "not within"},
      {"negative offset", object({tensor("a", "F32", "[1]", "[-4,0]")}), 4, "pair of unsigned"},
      {"one offset", object({tensor("a", "F32", "[1]", "[4]")}), 4, "pair of unsigned"},
      {"three offsets", object({tensor("a", "F32", "[1]", "[0,4,4]")}), 4, "pair of unsigned"},
      {"shape too small", object({tensor("a", "F32", "[1]", "[0,8]")}), 8,
       "needs 4 bytes, data_offsets hold 8"},
      {"overlap", object({tensor("a", "F32", "[2]", "[0,8]"), tensor("b", "F32", "[2]", "[4,12]")}),
       12, "overlaps"},
      {"same place",
       object({tensor("a", "F32", "[2]", "[0,8]"), tensor("b", "F32", "[2]", "[0,8]")}), 8,
       "overlaps"},
      {"hole", object({tensor("a", "F32", "[1]", "[0,4]"), tensor("b", "F32", "[1]", "[8,12]")}),
       12, "hole"},
      {"hole at the start", object({tensor("a", "F32", "[1]", "[4,8]")}), 8, "hole"},
      {"bytes left over", object({good}), 25, "25 data bytes"},
      {"same name",
       object({tensor("a", "F32", "[1]", "[0,4]"), tensor("a", "F32", "[1]", "[4,8]")}), 8,
       "appears twice"},
      {"same name escaped",
       object({tensor("a", "F32", "[1]", "[0,4]"), tensor("\\u0061", "F32", "[1]", "[4,8]")}), 8,
       "appears twice"},
      {"too many", many(kTensorsMax + 1), 0, "more than 32768 tensors"},
  };
  return table;
}

TEST(Safetensors, EveryDamagedHeaderIsRefusedWithItsReason) {
  for (const Row& row : rows()) {
    SCOPED_TRACE(row.name);
    const auto header = parse_safetensors_header(row.json, 8 + row.json.size() + row.data_bytes);
    if (std::string(row.name) == "dimension over 64 bits") {
      EXPECT_FALSE(header.has_value());  // the parser's or ours, by its number rules
      continue;
    }
    if (row.reason[0] == '\0') {
      EXPECT_TRUE(header.has_value()) << header.error().detail;
      continue;
    }
    ASSERT_FALSE(header.has_value());
    EXPECT_EQ(header.error().code, Errc::bad_file);
    EXPECT_NE(header.error().detail.find(row.reason), std::string::npos) << header.error().detail;
  }
}

TEST(Safetensors, TensorsComeInTheOrderOfTheirData) {
  const std::string json =
      object({tensor("late", "F16", "[4]", "[24,32]"), tensor("early", "F32", "[2,3]", "[0,24]")});
  const auto header = parse_safetensors_header(json, 8 + json.size() + 32);
  ASSERT_TRUE(header.has_value());
  ASSERT_EQ(header->tensors.size(), 2u);
  EXPECT_EQ(header->tensors[0].name, "early");
  EXPECT_EQ(header->tensors[0].shape, (std::vector<std::uint64_t>{2, 3}));
  EXPECT_EQ(header->tensors[1].offset, 24u);
  EXPECT_EQ(header->tensors[1].bytes, 8u);
  EXPECT_EQ(header->data_begin, 8 + json.size());
}

TEST(Safetensors, TheHeaderLengthIsHeldAgainstFileAndLimit) {
  const auto length = [](std::uint64_t value, std::uint64_t file_bytes) {
    std::array<std::uint8_t, 8> prefix{};
    for (std::size_t i = 0; i < 8; ++i) prefix[i] = static_cast<std::uint8_t>(value >> (8 * i));
    return safetensors_header_length(prefix, file_bytes);
  };
  EXPECT_EQ(*length(2, 10), 2u);
  EXPECT_EQ(*length(kSafetensorsHeaderMax, 1ull << 40), kSafetensorsHeaderMax);
  for (const auto& [value, bytes] : {std::pair<std::uint64_t, std::uint64_t>{0, 100},
                                     {1, 100},
                                     {3, 10},
                                     {kSafetensorsHeaderMax + 1, 1ull << 40},
                                     {~0ull, ~0ull},
                                     {~0ull - 7, 100},
                                     {2, 9},
                                     {2, 7},
                                     {1ull << 63, 1ull << 62}}) {
    EXPECT_FALSE(length(value, bytes).has_value()) << value << " " << bytes;
  }
}

TEST(ShardIndex, NamesStayInTheDirectory) {
  const auto index =
      parse_shard_index(R"({"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors"}})");
  ASSERT_TRUE(index.has_value());
  EXPECT_EQ(index->at("b"), "x-2.safetensors");
  for (const char* text :
       {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})", R"({"weight_map":{"a":1}})",
        R"({"weight_map":{"a":"../x.safetensors"}})", R"({"weight_map":{"a":"/x.safetensors"}})",
        R"({"weight_map":{"a":".safetensors"}})", R"({"weight_map":{"a":"x.bin"}})",
        R"({"weight_map":{"a":"x\u0000.safetensors"}})",
        R"({"weight_map":{"a":"x y.safetensors"}})",
        R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})"}) {
    EXPECT_FALSE(parse_shard_index(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace sluice::eng
