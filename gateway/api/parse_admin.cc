// One reader per body over a common walk that finds unknown keys.
#include "gateway/api/parse_admin.h"

#include <algorithm>
#include <limits>
#include <set>

#include "config/settings.h"
#include "gateway/api/field_reader.h"

namespace sluice::gw {
namespace {

namespace dom = simdjson::dom;

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

  // ---- visitor of config/settings.h. A limit of 0 would read as none there: here null says that.
  template <class Int>
  void integer(const char* key, Int& field, std::uint64_t low, std::uint64_t high) {
    whole_number<Int>(limit_api_name(key), field,
                      static_cast<std::int64_t>(std::max<std::uint64_t>(low, 1)),
                      static_cast<std::int64_t>(high), low == 0 ? Int{0} : default_of<Int>());
  }
  void boolean(const char* key, bool& field) {
    dom::element value;
    if (find(key, value, [&] { field = false; })) keep(fields_.boolean(value, path(key), field));
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

  Result<void> finish() {
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
  // The only limit with a default of its own is default_output_tokens.
  template <class Int>
  static Int default_of() {
    return static_cast<Int>(cfg::TenantLimits{}.output_tokens_default);
  }

  dom::object object_;
  std::string prefix_;
  std::set<std::string_view> known_;
  FieldReader fields_;
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

void read_models(ObjectReader& reader, std::vector<std::string>& models) {
  dom::element value;
  if (!reader.find("models", value, [&] { models.clear(); })) return;
  dom::array array;
  if (value.get(array) != simdjson::SUCCESS || array.size() > kModelsMax)
    return reader.keep(reader.fields().wrong(
        "models", "a list of at most " + std::to_string(kModelsMax) + " model names"));
  models.clear();
  for (const dom::element item : array) {
    std::string name;
    if (!reader.fields().text(item, "models", name)) return reader.keep(false);
    if (name.empty() || name.size() > cfg::kNameBytesMax)
      return reader.keep(reader.fields().wrong("models", "a list of model names"));
    models.push_back(std::move(name));
  }
}

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
  if (limits.output_tokens_max != 0 && limits.output_tokens_default > limits.output_tokens_max)
    return make_error(Errc::invalid_value,
                      "'default_output_tokens' must be at most max_output_tokens = " +
                          std::to_string(limits.output_tokens_max),
                      "default_output_tokens");
  return {};
}

Result<void> AdminParser::read_key(std::string& body, KeyFields& fields) {
  const Result<dom::object> object = parse(body);
  if (!object) return object.error();
  ObjectReader reader(*object, {});
  read_name(reader, "name", fields.name);
  reader.whole_number<std::int64_t>("expires_at", fields.expires_at, 1, kUnixSecondsMax, 0);
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

Result<void> AdminParser::read_rotation(std::string& body, std::int64_t& overlap_seconds) {
  const Result<dom::object> object = parse(body);
  if (!object) return object.error();
  ObjectReader reader(*object, {});
  reader.whole_number<std::int64_t>("overlap_seconds", overlap_seconds, 0, kOverlapSecondsMax, 0);
  return reader.finish();
}

}  // namespace sluice::gw
