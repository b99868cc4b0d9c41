// The configuration as YAML, and the list of all keys: two more visitors of settings.h.
#include <cstdio>

#include "config/load_config.h"
#include "config/yaml_reader.h"

namespace sluice::cfg {
namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

std::string quoted_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += kHexDigits[byte >> 4];
      out += kHexDigits[byte & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

class Printer {
 public:
  explicit Printer(Secrets secrets) : secrets_(secrets) {}

  template <class T>
  void integer(std::string_view key, const T& field, std::uint64_t, std::uint64_t) {
    line(key, std::to_string(field));
  }
  template <class T>
  void bytes(std::string_view key, const T& field, std::uint64_t, std::uint64_t) {
    line(key, format_size(field));
  }
  void limit(std::string_view key, const Limit& field, std::uint64_t) {
    line(key, field ? std::to_string(*field) : "none");
  }
  void duration(std::string_view key, const milliseconds& field, milliseconds, milliseconds) {
    line(key, format_duration(field));
  }
  void boolean(std::string_view key, const bool& field) { line(key, field ? "true" : "false"); }
  void text(std::string_view key, const std::string& field, std::size_t) {
    line(key, quoted_text(field));
  }
  template <class E>
  void choice(std::string_view key, const E& field, std::span<const std::string_view> names) {
    line(key, std::string(names[static_cast<std::size_t>(field)]));
  }
  void name_choice(std::string_view key, const std::string& field,
                   std::span<const std::string_view>) {
    line(key, quoted_text(field));
  }
  void digest(std::string_view key, const std::array<std::uint8_t, 32>& field) {
    std::string digits;
    for (const std::uint8_t byte : field) {
      digits += kHexDigits[byte >> 4];
      digits += kHexDigits[byte & 15];
    }
    line(key, secrets_ == Secrets::full ? quoted_text(digits) : "\"(masked)\"");
  }
  void texts(std::string_view key, const std::vector<std::string>& field, std::size_t,
             std::size_t) {
    std::string list = "[";
    for (const std::string& item : field) {
      if (list.size() > 1) list += ", ";
      list += quoted_text(item);
    }
    line(key, list + "]");
  }
  template <class S>
  void section(std::string_view key, const S& field) {
    line(key, "");
    indent_ += 2;
    visit_settings(*this, field);
    indent_ -= 2;
  }
  template <class S>
  void list(std::string_view key, const std::vector<S>& field, std::size_t) {
    line(key, field.empty() ? "[]" : "");
    for (const S& item : field) {
      indent_ += 4;
      starts_item_ = true;
      visit_settings(*this, item);
      indent_ -= 4;
    }
  }

  std::string take() { return std::move(out_); }

 private:
  void line(std::string_view key, const std::string& value) {
    out_.append(indent_ - (starts_item_ ? 2 : 0), ' ');
    if (starts_item_) out_ += "- ";
    starts_item_ = false;
    out_ += key;
    out_ += value.empty() ? ":" : ": ";
    out_ += value;
    out_ += '\n';
  }

  Secrets secrets_;
  std::size_t indent_ = 0;
  bool starts_item_ = false;
  std::string out_;
};

class KeyLister {
 public:
  template <class T>
  void integer(std::string_view key, const T&, std::uint64_t min, std::uint64_t max) {
    add(key, allowed_integers(min, max));
  }
  template <class T>
  void bytes(std::string_view key, const T&, std::uint64_t min, std::uint64_t max) {
    add(key, allowed_sizes(min, max));
  }
  void limit(std::string_view key, const Limit&, std::uint64_t max) {
    add(key, allowed_limits(max));
  }
  void duration(std::string_view key, const milliseconds&, milliseconds min, milliseconds max) {
    add(key, allowed_durations(min, max));
  }
  void boolean(std::string_view key, const bool&) { add(key, std::string(kAllowedBoolean)); }
  void text(std::string_view key, const std::string&, std::size_t bytes_max) {
    add(key, allowed_text(bytes_max));
  }
  template <class E>
  void choice(std::string_view key, const E&, std::span<const std::string_view> names) {
    add(key, allowed_names(names));
  }
  void name_choice(std::string_view key, const std::string&,
                   std::span<const std::string_view> names) {
    add(key, allowed_names(names));
  }
  void digest(std::string_view key, const std::array<std::uint8_t, 32>&) {
    add(key, std::string(kAllowedDigest));
  }
  void texts(std::string_view key, const std::vector<std::string>&, std::size_t count_max,
             std::size_t) {
    add(key, allowed_list(count_max));
  }
  template <class S>
  void section(std::string_view key, const S& field) {
    nested(key, field);
  }
  template <class S>
  void list(std::string_view key, const std::vector<S>&, std::size_t) {
    nested(std::string(key) + "[]", S{});
  }

  std::vector<SettingFacts> take() { return std::move(settings_); }

 private:
  template <class S>
  void nested(std::string_view key, const S& field) {
    const std::size_t size = prefix_.size();
    prefix_ += std::string(key) + ".";
    visit_settings(*this, field);
    prefix_.resize(size);
  }
  void add(std::string_view key, std::string allowed) {
    settings_.push_back({prefix_ + std::string(key), std::move(allowed)});
  }

  std::string prefix_;
  std::vector<SettingFacts> settings_;
};

}  // namespace

std::string print_config(const Config& config, Secrets secrets) {
  Printer printer(secrets);
  visit_settings(printer, config);
  return printer.take();
}

std::vector<SettingFacts> known_settings() {
  KeyLister lister;
  const Config defaults;
  visit_settings(lister, defaults);
  return lister.take();
}

}  // namespace sluice::cfg
