// One reader per body over a common walk that finds unknown keys.
#include "gateway/api/parse_admin.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <set>
#include <type_traits>

#include "config/settings.h"
#include "gateway/api/field_reader.h"

namespace sluice::gw {
namespace {

namespace dom = simdjson::dom;

// The rates of tokens may also come as one object.
struct TokenRate {
  std::string_view part, field;
};
constexpr std::string_view kTokensPerMinute = "tokens_per_minute";
constexpr std::array<TokenRate, 3> kTokenRates{{{"total", kTokensPerMinute},
                                                {"input", "input_tokens_per_minute"},
                                                {"output", "output_tokens_per_minute"}}};

// Reads members of one object and remembers which; also a visitor of the settings' table.
class ObjectReader {
 public:
  ObjectReader(dom::object object, std::string prefix)
      : object_(object), prefix_(std::move(prefix)) {}

  // True: the key is there, not null, and `value` is it. Null calls `reset`.
  template <class Reset>
  bool find(std::string_view key, dom::element& value, Reset reset) {
    known_.insert(key);
    if (failed_ || object_[key].get(value) != simdjson::SUCCESS) return false;
    if (!value.is_null()) return true;
    reset();
    return false;
  }
  std::string path(std::string_view key) const { return prefix_ + std::string(key); }
  FieldReader& fields() { return fields_; }
  void keep(bool is_good) { failed_ = failed_ || !is_good; }

  template <class Int>
  void whole_number(std::string_view key, Int& field, std::int64_t low, std::int64_t high,
                    Int reset) {
    dom::element value;
    if (find(key, value, [&] { field = reset; }))
      keep(fields_.integer(value, path(key), low, high, field));
  }

  // ---- visitor of config/settings.h
  void limit(const char* key, cfg::Limit& field, std::uint64_t high) {
    const std::string_view name = limit_api_name(key);
    dom::element value;
    if (dom::object parts; !failed_ && object_[kTokensPerMinute].get(parts) == simdjson::SUCCESS)
      if (const auto part = std::ranges::find(kTokenRates, name, &TokenRate::field);
          part != kTokenRates.end())
        read_part(parts, *part, field, high);
    if (is_in_parts(name)) return;
    if (find(name, value, [&] { field.reset(); })) read_limit(value, path(name), field, high);
  }
  // The only ones are default_output_tokens and the end of a temporary override.
  template <class Int>
  void integer(const char* key, Int& field, std::uint64_t low, std::uint64_t high) {
    const Int reset = std::is_same_v<Int, std::int64_t>
                          ? Int{0}
                          : static_cast<Int>(cfg::TenantLimits{}.output_tokens_default);
    whole_number<Int>(limit_api_name(key), field, static_cast<std::int64_t>(low),
                      static_cast<std::int64_t>(high), reset);
  }
  void boolean(const char* key, bool& field) {
    dom::element value;
    if (find(key, value, [&] { field = false; })) keep(fields_.boolean(value, path(key), field));
  }
  void text(std::string_view key, std::string& field, std::size_t bytes_max) {
    dom::element value;
    if (!find(key, value, [&] { field.clear(); })) return;
    std::string read;
    if (!fields_.text(value, path(key), read)) return keep(false);
    const bool is_plain = std::none_of(read.begin(), read.end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    });
    if (!is_plain || read.size() > bytes_max)
      return keep(fields_.wrong(
          path(key), "at most " + std::to_string(bytes_max) + " bytes without control characters"));
    field = std::move(read);
  }
  template <class Enum, std::size_t N>
  void choice(const char* key, Enum& field, const std::array<std::string_view, N>& names) {
    dom::element value;
    if (!find(key, value, [&] { field = Enum{}; })) return;
    std::string text;
    if (!fields_.text(value, path(key), text)) return keep(false);
    const auto at = std::find(names.begin(), names.end(), text);
    if (at == names.end()) return keep(fields_.wrong(path(key), "exact, incremental or quantile"));
    field = static_cast<Enum>(at - names.begin());
  }
  // Objects; the new list replaces the old one.
  template <class S>
  void list(const char* key, std::vector<S>& field, std::size_t count_max) {
    dom::element value;
    if (!find(key, value, [&] { field.clear(); })) return;
    dom::array array;
    if (value.get(array) != simdjson::SUCCESS || array.size() > count_max)
      return keep(fields_.wrong(path(key), "a list of at most " + std::to_string(count_max)));
    std::vector<S> read;
    for (const dom::element item : array) {
      const std::string at = path(key) + "[" + std::to_string(read.size()) + "]";
      dom::object object;
      if (item.get(object) != simdjson::SUCCESS) return keep(fields_.wrong(at, "an object"));
      ObjectReader reader(object, at + ".");
      cfg::visit_settings(reader, read.emplace_back());
      if (const Result<void> done = reader.finish(); !done) return refuse(done.error());
    }
    if (!failed_) field = std::move(read);
  }
  // A member of {"tokens_per_minute": {"input": 1, "output": 2, "total": 3}}.
  void read_part(dom::object parts, const TokenRate& part, cfg::Limit& field, std::uint64_t high) {
    for (const dom::key_value_pair member : parts)
      if (std::ranges::find(kTokenRates, member.key, &TokenRate::part) == kTokenRates.end())
        return keep(fields_.wrong(path(kTokensPerMinute), "a number, or input, output and total"));
    dom::element value;
    if (parts[part.part].get(value) != simdjson::SUCCESS) return;
    const std::string at = path(kTokensPerMinute) + "." + std::string(part.part);
    if (part.field != kTokensPerMinute && object_[part.field].error() == simdjson::SUCCESS)
      return keep(fields_.wrong(at, "one of this and " + std::string(part.field)));
    if (value.is_null())
      field.reset();
    else
      read_limit(value, at, field, high);
  }
  // Whether the value of the field itself is the object of parts, read already.
  bool is_in_parts(std::string_view name) {
    dom::object parts;
    if (name != kTokensPerMinute || object_[name].get(parts) != simdjson::SUCCESS) return false;
    known_.insert(name);
    return true;
  }
  void read_limit(dom::element value, const std::string& at, cfg::Limit& field,
                  std::uint64_t high) {
    std::uint64_t number = 0;
    keep(fields_.integer(value, at, 0, static_cast<std::int64_t>(high), number));
    if (!failed_) field = number;
  }
  // What a nested reader, or whoever knows more than one field, found.
  void refuse(Error error) {
    if (!failed_) refusal_ = std::move(error);
    failed_ = true;
  }

  Result<void> finish() {
    if (refusal_) return std::move(*refusal_);
    if (failed_) return fields_.take_error();
    for (const dom::key_value_pair member : object_)
      if (!known_.contains(member.key)) {
        const std::string key = path(member.key.substr(0, kAdminNameBytesMax));
        return make_error(Errc::unsupported_parameter, "'" + key + "' is not a field of this body",
                          key);
      }
    return {};
  }

 private:
  dom::object object_;
  std::string prefix_;
  std::set<std::string_view> known_;
  FieldReader fields_;
  std::optional<Error> refusal_;
  bool failed_ = false;
};

void read_name(ObjectReader& reader, std::string_view key, std::string& name) {
  dom::element value;
  if (!reader.find(key, value, [&] { name.clear(); })) return;
  std::string text;
  if (!reader.fields().text(value, reader.path(key), text)) return reader.keep(false);
  if (!is_admin_name(text))
    return reader.keep(
        reader.fields().wrong(reader.path(key), "1 to 64 characters of A-Z a-z 0-9 . _ -"));
  name = std::move(text);
}

// A list of texts that `accepts` takes.
template <class Accepts>
void read_texts(ObjectReader& reader, std::string_view key, std::vector<std::string>& texts,
                std::size_t count_max, std::string_view allowed, Accepts accepts) {
  dom::element value;
  if (!reader.find(key, value, [&] { texts.clear(); })) return;
  dom::array array;
  if (value.get(array) != simdjson::SUCCESS || array.size() > count_max)
    return reader.keep(reader.fields().wrong(reader.path(key), allowed));
  std::vector<std::string> read;
  for (const dom::element item : array) {
    if (!reader.fields().text(item, reader.path(key), read.emplace_back()))
      return reader.keep(false);
    if (!accepts(read.back())) return reader.keep(reader.fields().wrong(reader.path(key), allowed));
  }
  texts = std::move(read);
}

void read_models(ObjectReader& reader, std::vector<std::string>& models) {
  read_texts(
      reader, "models", models, kModelsMax, "a list of at most 16 model names",
      [](const std::string& name) { return !name.empty() && name.size() <= cfg::kNameBytesMax; });
}

void read_scopes(ObjectReader& reader, std::vector<std::string>& scopes) {
  read_texts(reader, "scopes", scopes, cfg::kScopeNames.size(),
             "a list of model.request, model.read, quota.read", [](const std::string& name) {
               return std::find(cfg::kScopeNames.begin(), cfg::kScopeNames.end(), name) !=
                      cfg::kScopeNames.end();
             });
}
static_assert(kModelsMax == 16);

}  // namespace

bool is_admin_name(std::string_view name) {
  return !name.empty() && name.size() <= kAdminNameBytesMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

std::string_view limit_api_name(std::string_view setting) {
  if (setting == "output_tokens_max") return "max_output_tokens";
  if (setting == "output_tokens_default") return "default_output_tokens";
  return setting;
}

Result<dom::object> AdminParser::parse(std::string& body) {
  const Result<dom::element> root = document_.parse(body);
  if (!root) return root.error();
  dom::object object;
  if (root->get(object) != simdjson::SUCCESS)
    return make_error(Errc::invalid_json, "the request body must be a JSON object");
  return object;
}

Result<void> AdminParser::read_tenant(std::string& body, TenantFields& fields) {
  const Result<dom::object> object = parse(body);
  if (!object) return object.error();
  ObjectReader reader(*object, {});
  read_name(reader, "id", fields.id);
  reader.text("name", fields.name, cfg::kNameBytesMax);
  reader.text("parent", fields.parent, cfg::kNameBytesMax);
  reader.text("security_class", fields.security_class, cfg::kNameBytesMax);
  reader.whole_number<std::uint32_t>("weight", fields.weight, 1, cfg::kWeightMax, 1);
  reader.boolean("is_blocked", fields.is_blocked);
  read_models(reader, fields.models);
  reader.whole_number<std::uint32_t>("priority_ceiling", fields.priority_ceiling, 0, 1000, 0);
  return reader.finish();
}

Result<void> AdminParser::read_quota(std::string& body, cfg::TenantLimits& limits) {
  const Result<dom::object> object = parse(body);
  if (!object) return object.error();
  ObjectReader reader(*object, {});
  cfg::visit_settings(reader, limits);
  if (const Result<void> read = reader.finish(); !read) return read;
  const cfg::Limit most = limits.output_tokens_max;
  if (most && *most > 0 && limits.output_tokens_default > *most)
    return make_error(
        Errc::invalid_value,
        "'default_output_tokens' must be at most max_output_tokens = " + std::to_string(*most),
        "default_output_tokens");
  return {};
}

Result<void> AdminParser::read_key(std::string& body, KeyFields& fields) {
  const Result<dom::object> object = parse(body);
  if (!object) return object.error();
  ObjectReader reader(*object, {});
  read_name(reader, "name", fields.name);
  reader.whole_number<std::int64_t>("expires_at", fields.expires_at, 1, cfg::kUnixSecondsMax, 0);
  read_scopes(reader, fields.scopes);
  dom::element value;
  if (reader.find("limits", value, [&] { fields.limits = {}; })) {
    dom::object nested;
    if (value.get(nested) != simdjson::SUCCESS)
      return make_error(Errc::invalid_value, "'limits' must be an object", "limits");
    ObjectReader limits(nested, "limits.");
    cfg::visit_settings(limits, fields.limits);
    if (const Result<void> read = limits.finish(); !read) return read;
  }
  return reader.finish();
}

Result<void> AdminParser::read_empty(std::string& body) {
  if (body.empty()) return {};
  const Result<dom::object> object = parse(body);
  if (!object) return object.error();
  return ObjectReader(*object, {}).finish();
}

Result<void> AdminParser::read_rotation(std::string& body, std::int64_t& overlap_seconds) {
  if (body.empty()) return {};
  const Result<dom::object> object = parse(body);
  if (!object) return object.error();
  ObjectReader reader(*object, {});
  reader.whole_number<std::int64_t>("overlap_seconds", overlap_seconds, 0, kOverlapSecondsMax, 0);
  return reader.finish();
}

}  // namespace sluice::gw
