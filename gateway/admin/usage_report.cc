// One statement per answer, built of fixed pieces; all that a client says is bound.
#include "gateway/admin/usage_report.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>
#include <vector>

#include "gateway/api/json_text.h"
#include "gateway/api/percent_decode.h"
#include "gateway/core/utc_calendar.h"
#include "gateway/store/schema_usage.h"

namespace sluice::gw {
namespace {

constexpr std::int64_t kMinutesRangeMaxS = 86'400;  // what one statement may have to sum
constexpr std::size_t kNameBytesMax = 256;
// The last ones are kept in thousandths.
constexpr std::array<std::string_view, 7> kCounts{
    "requests", "input_tokens",     "cached_tokens", "output_tokens",
    "cost",     "kv_token_seconds", "device_seconds"};
constexpr std::size_t kThousandths = 5;
using Counts = std::array<std::uint64_t, kCounts.size()>;

Error bad(std::string_view param, const char* why) {
  return make_error(Errc::invalid_value, why, std::string(param));
}

Result<std::int64_t> parse_integer(std::string_view param, std::string_view text, std::int64_t min,
                                   std::int64_t max) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max)
    return make_error(
        Errc::invalid_value,
        "must be an integer from " + std::to_string(min) + " to " + std::to_string(max),
        std::string(param));
  return value;
}

Result<void> parse_group(std::string_view text, UsageQuery& query) {
  query.by_tenant = query.by_key = query.by_model = false;
  while (!text.empty()) {
    const std::string_view name = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), name.size() + 1));
    bool* const by = name == "tenant"  ? &query.by_tenant
                     : name == "key"   ? &query.by_key
                     : name == "model" ? &query.by_model
                                       : nullptr;
    if (by == nullptr || std::exchange(*by, true))
      return bad("group_by", "must name each of tenant, key and model at most once");
  }
  return {};
}

Result<void> parse_integers(std::string_view name, std::string_view value, UsageQuery& query) {
  const bool is_limit = name == "limit";
  const auto number =
      parse_integer(name, value, is_limit ? 1 : 0, is_limit ? kUsageRowsMax : kUnixMsMax / 1000);
  if (!number) return number.error();
  (is_limit ? query.limit : name == "from" ? query.from_unix_s : query.to_unix_s) = *number;
  return {};
}

// START-TENANT-KEY-MODEL, the names as hex.
std::string cursor_text(const UsageCursor& cursor) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text = std::to_string(cursor.start);
  for (const std::string& name : cursor.names) {
    text.push_back('-');
    for (const char c : name) {
      const auto byte = static_cast<unsigned char>(c);
      text.push_back(kHex[byte >> 4]);
      text.push_back(kHex[byte & 15]);
    }
  }
  return text;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

Result<void> parse_cursor(std::string_view text, UsageCursor& cursor) {
  const Error wrong = bad("after", "must be the last_id of the page before");
  std::string_view rest = text.substr(std::min(text.size(), text.find('-')));
  const std::string_view number = text.substr(0, text.size() - rest.size());
  const auto start = parse_integer("after", number, 0, kUnixMsMax / 1000);
  if (!start) return wrong;
  cursor.start = *start;
  for (std::string& name : cursor.names) {
    if (rest.empty() || rest.front() != '-') return wrong;
    rest.remove_prefix(1);
    const std::string_view digits = rest.substr(0, rest.find('-'));
    rest.remove_prefix(digits.size());
    if (digits.size() % 2 != 0 || digits.size() > 2 * kNameBytesMax) return wrong;
    name.clear();
    for (std::size_t i = 0; i < digits.size(); i += 2) {
      const int high = hex_value(digits[i]), low = hex_value(digits[i + 1]);
      if (high < 0 || low < 0) return wrong;
      name.push_back(static_cast<char>(high * 16 + low));
    }
  }
  if (!rest.empty()) return wrong;
  return {};
}

Result<void> parse_pair(std::string_view name, const std::string& value, UsageQuery& query) {
  if (name == "period") {
    if (value != "minute" && value != "day" && value != "month")
      return bad(name, "must be minute, day or month");
    query.period = value == "minute" ? UsagePeriod::minute
                   : value == "day"  ? UsagePeriod::day
                                     : UsagePeriod::month;
    return {};
  }
  if (name == "format") {
    if (value != "json" && value != "csv") return bad(name, "must be json or csv");
    query.is_csv = value == "csv";
    return {};
  }
  if (name == "tenant" || name == "model") {
    if (value.empty() || value.size() > kNameBytesMax) return bad(name, "must be a name");
    std::optional<std::string>& into = name == "tenant" ? query.tenant : query.model;
    if (into && name == "tenant") return bad(name, "is given by the path");
    into = value;
    return {};
  }
  if (name == "group_by") return parse_group(value, query);
  if (name == "after") return parse_cursor(value, query.after);
  if (name == "limit" || name == "from" || name == "to") return parse_integers(name, value, query);
  return bad("query", "the query holds a name that it may not");
}

std::string table_of(UsagePeriod period) {
  return period == UsagePeriod::minute ? "usage_minutes" : "usage_days";
}

std::string start_of(UsagePeriod period) {
  return period == UsagePeriod::month ? kMonthStart : "start";
}

std::int64_t default_range_s(UsagePeriod period) {
  return period == UsagePeriod::minute ? 3600
         : period == UsagePeriod::day  ? 30 * 86'400
                                       : 366 * 86'400;
}

std::string_view period_name(UsagePeriod period) {
  return period == UsagePeriod::minute ? "minute" : period == UsagePeriod::day ? "day" : "month";
}

constexpr std::string_view kRows =
    " JOIN usage_accounts ON id = account LEFT JOIN usage_models ON usage_models.digest = model "
    "WHERE start >= ?1 AND start < ?2 AND (?3 = '' OR tenant = ?3) AND (?4 = '' OR name = ?4)";
constexpr std::string_view kSums =
    "sum(requests), sum(prompt), sum(cached), sum(output), sum(cost), sum(kv_token_ms), "
    "sum(device_ms) FROM ";

void bind_filter(Statement& statement, const UsageQuery& query) {
  statement.bind(1, query.from_unix_s).bind(2, query.to_unix_s);
  statement.bind(3, query.tenant.value_or("")).bind(4, query.model.value_or(""));
}

struct Row {
  std::int64_t start = 0;
  std::array<std::string, 3> names;  // tenant, key, model
  Counts counts{};
};

Counts read_counts(const Statement& statement, int first) {
  Counts counts{};
  for (int i = 0; i < static_cast<int>(kCounts.size()); ++i) {
    const std::int64_t value = statement.integer(first + i);
    counts[static_cast<std::size_t>(i)] = value < 0 ? 0 : static_cast<std::uint64_t>(value);
  }
  return counts;
}

void append_count(std::string& out, std::size_t column, std::uint64_t count) {
  if (column < kThousandths) {
    append_integer(out, count);
    return;
  }
  append_integer(out, count / 1000);
  const std::string digits = std::to_string(1000 + count % 1000);
  out.append(".").append(digits, 1);
}

void append_counts(std::string& out, const Counts& counts) {
  for (std::size_t i = 0; i < counts.size(); ++i) {
    out.append(i == 0 ? "\"" : ",\"").append(kCounts[i]).append("\":");
    append_count(out, i, counts[i]);
  }
}

// Empty: a key that is none (the tenant's own requests), a request of no model.
void append_name(std::string& out, std::string_view member, const std::string& name) {
  out.append(",\"").append(member).append("\":");
  if (name.empty())
    out.append("null");
  else
    append_json_string(out, name);
}

std::string to_json(const UsageQuery& query, const std::vector<Row>& rows, bool has_more,
                    const std::string& last_id, const Counts& total) {
  std::string out = "{\"object\":\"list\",\"data\":[";
  for (const Row& row : rows) {
    if (&row != rows.data()) out.push_back(',');
    out.append("{\"object\":\"usage\",\"period\":\"").append(period_name(query.period));
    out.append("\",\"start\":");
    append_integer(out, row.start);
    if (query.by_tenant) append_name(out, "tenant", row.names[0]);
    if (query.by_key) append_name(out, "key", row.names[1]);
    if (query.by_model) append_name(out, "model", row.names[2]);
    out.push_back(',');
    append_counts(out, row.counts);
    out.push_back('}');
  }
  out.append("],\"total\":{");
  append_counts(out, total);
  out.append("},\"has_more\":").append(has_more ? "true" : "false").append(",\"last_id\":");
  if (last_id.empty())
    out.append("null}");
  else
    out.append("\"").append(last_id).append("\"}");
  return out;
}

void append_csv_text(std::string& out, const std::string& text) {
  out.push_back('"');
  for (const char c : text) out.append(c == '"' ? 2 : 1, c);
  out.push_back('"');
}

std::string to_csv(const UsageQuery& query, const std::vector<Row>& rows) {
  const std::array<bool, 3> has{query.by_tenant, query.by_key, query.by_model};
  constexpr std::array<std::string_view, 3> kNames{"tenant", "key", "model"};
  std::string out = "start";
  for (std::size_t i = 0; i < has.size(); ++i)
    if (has[i]) out.append(",").append(kNames[i]);
  for (const std::string_view name : kCounts) out.append(",").append(name);
  out.append("\r\n");
  for (const Row& row : rows) {
    append_integer(out, row.start);
    for (std::size_t i = 0; i < has.size(); ++i)
      if (has[i]) append_csv_text((out.push_back(','), out), row.names[i]);
    for (std::size_t i = 0; i < kCounts.size(); ++i)
      append_count((out.push_back(','), out), i, row.counts[i]);
    out.append("\r\n");
  }
  return out;
}

}  // namespace

Result<UsageQuery> parse_usage_query(std::string_view text, std::string_view tenant,
                                     std::int64_t now_unix_s) {
  UsageQuery query;
  query.to_unix_s = now_unix_s + 1;
  query.from_unix_s = -1;
  if (!tenant.empty()) query.tenant = std::string(tenant);
  std::vector<std::string_view> seen;
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    const std::size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view name = pair.substr(0, equals);
    std::string value;
    if (!percent_decode(pair.substr(std::min(pair.size(), equals + 1)), value))
      return bad("query", "the query has a malformed percent sign");
    for (const std::string_view other : seen)
      if (other == name) return bad("query", "the query names something twice");
    if (const Result<void> parsed = parse_pair(name, value, query); !parsed) return parsed.error();
    seen.push_back(name);  // of those that are known: few
  }
  if (query.from_unix_s < 0)
    query.from_unix_s = std::max<std::int64_t>(query.to_unix_s - default_range_s(query.period), 0);
  if (query.from_unix_s > query.to_unix_s) return bad("from", "must not be behind 'to'");
  if (query.period == UsagePeriod::minute &&
      query.to_unix_s - query.from_unix_s > kMinutesRangeMaxS)
    return bad("from", "minutes are told of at most a day at once");
  return query;
}

Result<UsageReport> UsageReport::open(const std::string& path) {
  Result<Sqlite> database = Sqlite::open(path);
  if (!database) return database.error();
  if (const auto made = database->migrate("usage", kUsageMigrations); !made) return made.error();
  return UsageReport(std::move(*database));
}

Result<UsageReport::Page> UsageReport::write(const UsageQuery& query) {
  const std::string table = table_of(query.period);
  const std::string start = start_of(query.period);
  const std::string rows_of = std::string(kRows) + " AND " + start + " >= ?1";
  const std::string group = std::string(query.by_tenant ? "tenant" : "''") + ", " +
                            (query.by_key ? "key" : "''") + ", " +
                            (query.by_model ? "ifnull(name, '')" : "''");
  const std::string behind = " AND (" + start + ", " + group + ") > (?6, ?7, ?8, ?9)";
  // One look at the tables for both.
  const Result<Transaction> transaction = Transaction::begin_reading(database_);
  if (!transaction) return transaction.error();
  Result<Statement> select =
      database_.prepare("SELECT " + start + ", " + group + ", " + std::string(kSums) + table +
                        rows_of + behind + " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT ?5");
  if (!select) return select.error();
  bind_filter(*select, query);
  select->bind(5, query.limit + 1).bind(6, query.after.start);
  for (int i = 0; i < 3; ++i) select->bind(7 + i, query.after.names[static_cast<std::size_t>(i)]);
  std::vector<Row> rows;
  for (;;) {
    const Result<bool> has_row = select->step();
    if (!has_row) return has_row.error();
    if (!*has_row) break;
    Row& row = rows.emplace_back();
    row.start = select->integer(0);
    for (int i = 0; i < 3; ++i) row.names[static_cast<std::size_t>(i)] = select->text(1 + i);
    row.counts = read_counts(*select, 4);
  }
  const bool has_more = static_cast<std::int64_t>(rows.size()) > query.limit;
  if (has_more) rows.pop_back();
  std::string last_id;
  if (!rows.empty()) last_id = cursor_text({rows.back().start, rows.back().names});
  if (query.is_csv) return Page{to_csv(query, rows), has_more ? last_id : std::string()};
  Result<Statement> total = database_.prepare("SELECT " + std::string(kSums) + table + rows_of);
  if (!total) return total.error();
  bind_filter(*total, query);
  if (const Result<bool> row = total->step(); !row) return row.error();
  return Page{to_json(query, rows, has_more, last_id, read_counts(*total, 0)), last_id};
}

}  // namespace sluice::gw
