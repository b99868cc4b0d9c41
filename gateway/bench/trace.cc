// The two formats of traces; see trace.h.
#include "gateway/bench/trace.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>

#include "gateway/bench/line_reader.h"

namespace sluice::bench {
namespace {

constexpr const char* kParam = "trace";
constexpr double kSecondsMax = 4e9;  // of a timestamp: until the year 2096
constexpr std::size_t kColumnsMax = 64;

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// At most kColumnsMax fields; empty for more, or for quotes.
std::vector<std::string_view> fields_of(std::string_view line) {
  std::vector<std::string_view> fields;
  if (line.find('"') != std::string_view::npos) return fields;
  for (;;) {
    const std::size_t comma = line.find(',');
    fields.push_back(trimmed(line.substr(0, comma)));
    if (comma == std::string_view::npos) return fields;
    if (fields.size() == kColumnsMax) return {};
    line.remove_prefix(comma + 1);
  }
}

template <class T>
std::optional<T> number_of(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// `count` digits and then `mark`, taken from the front of text.
std::optional<unsigned> take_digits(std::string_view& text, std::size_t count, char mark) {
  if (text.size() < count || (mark != 0 && (text.size() == count || text[count] != mark)))
    return std::nullopt;
  const std::optional<unsigned> value = number_of<unsigned>(text.substr(0, count));
  text.remove_prefix(count + (mark != 0 ? 1 : 0));
  return value;
}

// Up to nine digits count; nanoseconds.
std::optional<std::int64_t> take_fraction(std::string_view& text) {
  std::int64_t value = 0;
  std::int64_t unit = 1'000'000'000;
  if (!text.starts_with('.')) return 0;
  text.remove_prefix(1);
  const std::size_t before = text.size();
  for (; !text.empty() && text[0] >= '0' && text[0] <= '9'; text.remove_prefix(1)) {
    unit /= 10;
    value += unit * (text[0] - '0');
  }
  if (text.size() == before) return std::nullopt;
  return value;
}

// Z, +hh:mm, -hh:mm or nothing; minutes east.
std::optional<int> zone_of(std::string_view text) {
  if (text.empty() || text == "Z") return 0;
  const char sign = text[0];
  if (sign != '+' && sign != '-') return std::nullopt;
  text.remove_prefix(1);
  const auto hours = take_digits(text, 2, ':');
  const auto minutes = take_digits(text, 2, 0);
  if (!hours || !minutes || !text.empty() || *hours > 23 || *minutes > 59) return std::nullopt;
  const int east = static_cast<int>(*hours * 60 + *minutes);
  return sign == '+' ? east : -east;
}

std::optional<Duration> date_of(std::string_view text) {
  namespace chr = std::chrono;
  const auto year = take_digits(text, 4, '-');
  const auto month = take_digits(text, 2, '-');
  if (!year || !month || text.size() < 3 || (text[2] != ' ' && text[2] != 'T')) return std::nullopt;
  const auto day = take_digits(text, 2, text[2]);
  const auto hour = take_digits(text, 2, ':');
  const auto minute = take_digits(text, 2, ':');
  const auto second = take_digits(text, 2, 0);
  const auto fraction = take_fraction(text);
  const auto zone = zone_of(text);
  if (!day || !hour || !minute || !second || !fraction || !zone) return std::nullopt;
  const chr::year_month_day date(chr::year(static_cast<int>(*year)), chr::month(*month),
                                 chr::day(*day));
  if (!date.ok() || *year < 1970 || *year > 2095 || *hour > 23 || *minute > 59 || *second > 60)
    return std::nullopt;
  return Duration(chr::sys_days(date).time_since_epoch()) + chr::hours(*hour) +
         chr::minutes(*minute) - chr::minutes(*zone) + chr::seconds(*second) + Duration(*fraction);
}

std::optional<Duration> duration_of(double seconds) {
  if (!(seconds >= 0 && seconds <= kSecondsMax)) return std::nullopt;  // NaN, too
  return Duration(static_cast<Duration::rep>(seconds * 1e9));
}

std::optional<Duration> time_of(std::string_view text) {
  if (const auto seconds = number_of<double>(text)) return duration_of(*seconds);
  return date_of(text);
}

enum Column : std::size_t { kTime, kPrompt, kOutput, kColumns };
struct ColumnName {
  Column column;
  std::string_view name;  // in small letters
};
constexpr std::array<ColumnName, 5> kNames{{{kTime, "timestamp"},
                                            {kPrompt, "contexttokens"},
                                            {kPrompt, "request tokens"},
                                            {kOutput, "generatedtokens"},
                                            {kOutput, "response tokens"}}};
constexpr std::size_t kMissing = SIZE_MAX;

Result<std::array<std::size_t, kColumns>> columns_of(const LineReader& lines,
                                                     std::string_view header) {
  if (header.starts_with("\xef\xbb\xbf")) header.remove_prefix(3);
  std::array<std::size_t, kColumns> columns{kMissing, kMissing, kMissing};
  const std::vector<std::string_view> fields = fields_of(header);
  for (std::size_t i = 0; i < fields.size(); ++i) {
    std::string name(fields[i]);
    for (char& c : name)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    for (const ColumnName& known : kNames) {
      if (known.name != name) continue;
      if (columns[known.column] != kMissing)
        return lines.error("the column " + name + " stands there twice", kParam);
      columns[known.column] = i;
    }
  }
  for (const std::size_t column : columns) {
    if (column == kMissing)
      return lines.error("expected the columns TIMESTAMP, ContextTokens, GeneratedTokens", kParam);
  }
  return columns;
}

// Checks the ranges. Times count from 1970 here, from the first request in the end.
Result<void> add_request(Trace& trace, const LineReader& lines, std::optional<Duration> at,
                         std::optional<std::uint64_t> prompt, std::optional<std::uint64_t> output) {
  if (!at) return lines.error("the timestamp is no date, no time and no number", kParam);
  if (!prompt || *prompt < 1 || *prompt > kTracePromptTokensMax)
    return lines.error(
        "the prompt's tokens are no number from 1 to " + std::to_string(kTracePromptTokensMax),
        kParam);
  if (!output || *output > kTraceOutputTokensMax)
    return lines.error(
        "the answer's tokens are no number from 0 to " + std::to_string(kTraceOutputTokensMax),
        kParam);
  if (trace.requests.size() == kReplayLinesMax)
    return lines.error("more than " + std::to_string(kReplayLinesMax) + " requests", kParam);
  trace.requests.push_back({*at, static_cast<std::uint32_t>(*prompt),
                            std::max<std::uint32_t>(static_cast<std::uint32_t>(*output), 1),
                            trace.blocks.size(), 0});
  return {};
}

Result<void> parse_csv(LineReader& lines, Trace& trace) {
  std::string_view line;
  if (!lines.next(line)) return lines.error("the file is empty", kParam);
  const auto columns = columns_of(lines, line);
  if (!columns) return columns.error();
  const std::size_t last = *std::max_element(columns->begin(), columns->end());
  while (lines.next(line)) {
    const std::vector<std::string_view> fields = fields_of(line);
    if (fields.size() <= last) return lines.error("too few or quoted fields", kParam);
    const Result<void> added = add_request(trace, lines, time_of(fields[(*columns)[kTime]]),
                                           number_of<std::uint64_t>(fields[(*columns)[kPrompt]]),
                                           number_of<std::uint64_t>(fields[(*columns)[kOutput]]));
    if (!added) return added.error();
  }
  return {};
}

std::optional<std::uint64_t> unsigned_of(const simdjson::dom::element& object, const char* key) {
  std::uint64_t value = 0;
  if (object[key].get(value) != simdjson::SUCCESS) return std::nullopt;
  return value;
}

// The ids of the request that was added last.
Result<void> add_blocks(Trace& trace, const LineReader& lines, const simdjson::dom::array& ids) {
  TraceRequest& request = trace.requests.back();
  const std::size_t wanted =
      (std::size_t{request.prompt_tokens} + trace.block_tokens - 1) / trace.block_tokens;
  for (const simdjson::dom::element element : ids) {
    std::uint64_t id = 0;
    if (element.get(id) != simdjson::SUCCESS)
      return lines.error("a number of hash_ids is no whole number from 0 on", kParam);
    if (request.num_blocks++ == wanted) break;
    trace.blocks.push_back(id);
  }
  if (request.num_blocks == wanted) return {};
  return lines.error("hash_ids do not fit input_length: " + std::to_string(wanted) + " blocks of " +
                         std::to_string(trace.block_tokens) + " tokens",
                     kParam);
}

Result<void> parse_json_lines(LineReader& lines, Trace& trace) {
  simdjson::dom::parser parser;
  std::string_view line;
  while (lines.next(line)) {
    simdjson::dom::element root;
    if (parser.parse(simdjson::padded_string(line)).get(root) != simdjson::SUCCESS ||
        !root.is_object())
      return lines.error("not a JSON object", kParam);
    double ms = 0;
    std::optional<Duration> at;
    if (root["timestamp"].get(ms) == simdjson::SUCCESS) at = duration_of(ms / 1e3);
    const Result<void> added = add_request(trace, lines, at, unsigned_of(root, "input_length"),
                                           unsigned_of(root, "output_length"));
    if (!added) return added.error();
    simdjson::dom::element ids;
    if (root["hash_ids"].get(ids) == simdjson::NO_SUCH_FIELD) continue;
    simdjson::dom::array array;
    if (ids.get(array) != simdjson::SUCCESS) return lines.error("hash_ids are no array", kParam);
    const Result<void> checked = add_blocks(trace, lines, array);
    if (!checked) return checked.error();
  }
  return {};
}

}  // namespace

Result<Trace> parse_trace(std::string_view text, std::uint32_t block_tokens) {
  Trace trace;
  trace.block_tokens = block_tokens;
  LineReader lines(text);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const bool is_json = first != std::string_view::npos && text[first] == '{';
  const Result<void> parsed = is_json ? parse_json_lines(lines, trace) : parse_csv(lines, trace);
  if (!parsed) return parsed.error();
  if (trace.requests.empty()) return lines.error("the trace holds no request", kParam);
  std::stable_sort(trace.requests.begin(), trace.requests.end(),
                   [](const TraceRequest& a, const TraceRequest& b) { return a.at < b.at; });
  const Duration begin = trace.requests.front().at;
  for (TraceRequest& request : trace.requests) request.at -= begin;
  return trace;
}

}  // namespace sluice::bench
