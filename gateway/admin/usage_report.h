// UsageReport: what `GET /admin/v1/usage` and `/admin/v1/tenants/ID/usage` answer: sums of the
// usage book by tenant, key and model, per minute (of the last days), day or month, as JSON or CSV.
//
//   ?period=day&from=UNIX_S&to=UNIX_S&group_by=tenant,key,model&tenant=ID&model=NAME
//   &limit=1..1000&after=LAST_ID&format=json|csv
//
// LAST_ID names the last row of the page before (its start, tenant, key and model), so that rows
// which come or grow meanwhile neither repeat nor hide one; opaque to clients. A page of CSV that
// is not the last one tells it beside the body.
//
// Beside tokens and cost: kv_token_seconds (KV tokens held x seconds) and device_seconds (the share
// of step times; gateway/core/resource_use.h says how it is shared out). What was settled within
// the last second may not be on the disk yet and is not shown. Has a connection of its own; one
// thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/store/sqlite.h"
#include "gateway/store/usage_book.h"

namespace sluice::gw {

inline constexpr std::int64_t kUsageRowsMax = 1000;  // of one answer

struct UsageCursor {
  std::int64_t start = -1;           // of no row: the first page
  std::array<std::string, 3> names;  // tenant, key, model; empty where not grouped by it
};

struct UsageQuery {
  UsagePeriod period = UsagePeriod::day;
  std::int64_t from_unix_s = 0;  // of periods that start at it or later
  std::int64_t to_unix_s = 0;    // and before this
  bool by_tenant = true, by_key = true, by_model = true;
  std::optional<std::string> tenant, model;
  std::int64_t limit = 100;
  UsageCursor after;
  bool is_csv = false;
};

// `tenant`: of the path; may be empty. Without `from`: the hour, 30 days or year before `to`, by
// the period. Errors: invalid_value, naming the parameter.
Result<UsageQuery> parse_usage_query(std::string_view query, std::string_view tenant,
                                     std::int64_t now_unix_s);

class UsageReport {
 public:
  static Result<UsageReport> open(const std::string& path);
  struct Page {
    std::string body;
    std::string last_id;  // empty: no row, or of CSV the last page
  };
  Result<Page> write(const UsageQuery& query);

 private:
  explicit UsageReport(Sqlite database) : database_(std::move(database)) {}
  Sqlite database_;
};

}  // namespace sluice::gw
