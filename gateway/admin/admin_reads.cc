// What the service shows: from memory, but for the audit log.
#include <algorithm>
#include <charconv>
#include <utility>

#include "config/load_config.h"
#include "config/settings.h"
#include "gateway/admin/admin_json.h"
#include "gateway/admin/admin_service.h"
#include "gateway/admin/admin_thread.h"
#include "gateway/api/json_text.h"

namespace sluice::gw {
namespace {

AdminAnswer failure(Error error) {
  AdminAnswer answer;
  answer.error = std::move(error);
  return answer;
}

Error not_found(std::string_view what) {
  return make_error(Errc::not_found, std::string("there is no such ").append(what));
}

// What an id may hold that fits into a query as it is.
bool is_cursor(std::string_view text) {
  return !text.empty() && text.size() <= 3 * cfg::kNameBytesMax + 16 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

struct Page {
  std::size_t limit = 20;
  std::string after;
};

// limit=1..100 and after=ID; nothing else, each once.
Result<Page> parse_page(std::string_view query) {
  Page page;
  bool has_limit = false;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const std::size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view name = pair.substr(0, equals);
    const std::string_view value = pair.substr(std::min(pair.size(), equals + 1));
    if (name == "limit" && !has_limit) {
      has_limit = true;
      const auto [end, error] =
          std::from_chars(value.data(), value.data() + value.size(), page.limit);
      if (error != std::errc() || end != value.data() + value.size() || page.limit == 0 ||
          page.limit > kAdminPageMax)
        return make_error(Errc::invalid_value, "'limit' must be an integer from 1 to 100", "limit");
    } else if (name == "after" && page.after.empty() && is_cursor(value)) {
      page.after.assign(value);
    } else {
      const std::string param(is_admin_name(name) ? name : std::string_view("query"));
      return make_error(Errc::invalid_value,
                        "the query may hold 'limit' and 'after', the last id of the page before",
                        param);
    }
  }
  return page;
}

// {"object":"list","data":[...],"has_more":..,"last_id":..} of what follows `after` by id.
template <class Entries, class Append>
std::string list_json(const Entries& entries, const Page& page, Append append) {
  std::string out = "{\"object\":\"list\",\"data\":[";
  std::size_t count = 0;
  std::string_view last;
  auto at = page.after.empty() ? entries.begin() : entries.upper_bound(page.after);
  for (; at != entries.end() && count < page.limit; ++at, ++count) {
    if (count > 0) out.push_back(',');
    append(out, at->second);
    last = at->first;
  }
  out.append("],\"has_more\":").append(at != entries.end() ? "true" : "false");
  out.append(",\"last_id\":");
  if (count > 0)
    append_json_string(out, last);
  else
    out.append("null");
  out.push_back('}');
  return out;
}

// The entry of that id, or an error that names what is missing.
template <class Entries, class Append>
AdminAnswer one_json(const Entries& entries, const std::string& id, std::string_view what,
                     Append append) {
  const auto at = entries.find(id);
  if (at == entries.end()) return failure(not_found(what));
  AdminAnswer answer;
  append(answer.body, at->second);
  return answer;
}

}  // namespace

std::string etag_of(std::int64_t version) {
  return "\"" + std::to_string(version) + "\"";
}

bool AdminService::is_configured(const std::string& tenant) const {
  return configured_.contains(tenant);
}

std::optional<ManagedTenant> AdminService::find(const std::string& id) const {
  for (const cfg::Tenant& configured : base_.tenants) {
    if (!is_configured(id)) break;
    if (configured.name != id) continue;
    ManagedTenant tenant;
    tenant.fields.id = configured.name;
    tenant.fields.parent = configured.parent;
    tenant.fields.security_class = configured.security_class;
    tenant.fields.weight = configured.weight;
    tenant.fields.is_blocked = configured.blocked;
    tenant.fields.models = configured.models;
    tenant.fields.priority_ceiling = configured.priority_ceiling;
    tenant.limits = configured.limits;
    return tenant;
  }
  const auto at = directory_.tenants().find(id);
  if (at == directory_.tenants().end()) return std::nullopt;
  return at->second;
}

// Those of a page and one more, so that the page knows whether something follows.
std::map<std::string, ManagedTenant> AdminService::tenants_behind(const std::string& after,
                                                                  std::size_t count) const {
  std::map<std::string, ManagedTenant> found;
  auto managed = directory_.tenants().upper_bound(after);
  for (std::size_t i = 0; i < count && managed != directory_.tenants().end(); ++i, ++managed)
    found.insert(*managed);
  auto configured = configured_.upper_bound(after);
  for (std::size_t i = 0; i < count && configured != configured_.end(); ++i, ++configured)
    found.insert_or_assign(configured->first, *find(configured->first));
  return found;
}

std::string AdminService::quota_json(const ManagedTenant& tenant) const {
  std::string out;
  std::vector<std::string> models;
  for (const cfg::Model& model : base_.models) models.push_back(model.name);
  append_quota(out, tenant.fields.id, tenant.limits, hooks_.tenant_quota(tenant.fields.id), models);
  return out;
}

std::map<std::string, BreakerStatus> AdminService::breakers_behind(const std::string& after,
                                                                   std::size_t count) const {
  std::map<std::string, BreakerStatus> by_id;
  for (BreakerStatus& status : hooks_.fleet->breakers(after, count)) {
    std::string id = status.id;
    by_id.emplace(std::move(id), std::move(status));
  }
  return by_id;
}

std::map<std::string, WorkerStatus> AdminService::workers() const {
  std::map<std::string, WorkerStatus> by_id;
  for (WorkerStatus& status : hooks_.fleet->workers()) {
    std::string id = status.id;
    by_id.emplace(std::move(id), std::move(status));
  }
  return by_id;
}

std::string AdminService::model_of(const std::string& fleet_id) const {
  constexpr std::string_view kPrefix = "worker:";
  const std::string number =
      fleet_id.starts_with(kPrefix) ? fleet_id.substr(kPrefix.size()) : fleet_id;
  for (const WorkerStatus& worker : hooks_.fleet->workers())
    if (worker.id == number) return worker.model;
  return {};
}

AdminAnswer AdminService::read(const AdminCall& call) const {
  const Result<Page> page = parse_page(call.query);
  if (!page) return failure(page.error());
  AdminAnswer answer;
  const std::int64_t now = hooks_.unix_s();
  switch (call.noun) {
    case AdminNoun::tenants: {
      const auto found = tenants_behind(page->after, page->limit + 1);
      answer.body = list_json(found, *page, [&](std::string& out, const ManagedTenant& tenant) {
        append_tenant(out, tenant,
                      is_configured(tenant.fields.id) ? Source::configuration : Source::rest);
      });
      return answer;
    }
    case AdminNoun::tenant:
    case AdminNoun::quota: {
      const std::optional<ManagedTenant> tenant = find(call.id);
      if (!tenant) return failure(not_found("tenant"));
      const bool is_rest = !is_configured(call.id);
      if (call.noun == AdminNoun::quota)
        answer.body = quota_json(*tenant);
      else
        append_tenant(answer.body, *tenant, is_rest ? Source::rest : Source::configuration);
      if (is_rest) answer.version = tenant->version;
      return answer;
    }
    case AdminNoun::tenant_keys: {
      if (!find(call.id)) return failure(not_found("tenant"));
      std::map<std::string, ManagedKey> keys;
      for (const std::string& id : directory_.keys_of(call.id))
        keys.emplace(id, directory_.keys().at(id));
      answer.body = list_json(
          keys, *page, [&](std::string& out, const ManagedKey& key) { append_key(out, key, now); });
      return answer;
    }
    case AdminNoun::key: {
      const auto key = directory_.keys().find(call.id);
      if (key == directory_.keys().end()) return failure(not_found("key"));
      append_key(answer.body, key->second, now);
      answer.version = key->second.version;
      return answer;
    }
    case AdminNoun::breakers:
      answer.body = list_json(breakers_behind(page->after, page->limit + 1), *page, append_breaker);
      return answer;
    case AdminNoun::breaker:
    case AdminNoun::breaker_open:
    case AdminNoun::breaker_reset: {
      const std::optional<BreakerStatus> status = hooks_.fleet->breaker(call.id);
      if (!status) return failure(not_found("breaker"));
      append_breaker(answer.body, *status);
      return answer;
    }
    case AdminNoun::workers:
      answer.body = list_json(workers(), *page, append_worker);
      return answer;
    case AdminNoun::worker:
    case AdminNoun::worker_drain:
    case AdminNoun::worker_resume:
    case AdminNoun::worker_recycle:
      return one_json(workers(), call.id, "worker", append_worker);
    case AdminNoun::config:
      answer.body = "{\"object\":\"config\",\"yaml\":";
      append_json_string(answer.body, cfg::print_config(base_, cfg::Secrets::masked));
      answer.body.push_back('}');
      return answer;
    default:
      return failure(not_found("route"));
  }
}

void AdminService::list_audit(const AdminCall& call, AdminDone done) {
  const Result<Page> page = parse_page(call.query);
  std::int64_t before = 0;
  bool is_good = page.has_value();
  if (is_good && !page->after.empty()) {
    const char* const end = page->after.data() + page->after.size();
    const auto [at, error] = std::from_chars(page->after.data(), end, before);
    is_good = error == std::errc() && at == end && before > 0;
  }
  if (!is_good || thread_->num_waiting() >= kAdminCallsWaitingMax) {
    AdminAnswer answer =
        failure(!page     ? page.error()
                : is_good ? make_error(Errc::overloaded, "too many admin calls wait")
                          : make_error(Errc::invalid_value,
                                       "'after' must be the last id of the page before", "after"));
    return done(answer);
  }
  thread_->submit([this, before, limit = page->limit, done = std::move(done)]() mutable {
    auto rows = store_.audit(before, static_cast<std::int64_t>(limit) + 1);
    auto answer = std::make_shared<AdminAnswer>();
    if (!rows) {
      answer->error = rows.error();
    } else {
      const std::size_t count = std::min(rows->size(), limit);
      answer->body = "{\"object\":\"list\",\"data\":[";
      for (std::size_t i = 0; i < count; ++i) {
        if (i > 0) answer->body.push_back(',');
        append_audit_row(answer->body, (*rows)[i].first, (*rows)[i].second);
      }
      answer->body.append("],\"has_more\":").append(rows->size() > limit ? "true" : "false");
      answer->body.append(",\"last_id\":");
      if (count == 0)
        answer->body.append("null}");
      else
        answer->body.append("\"" + std::to_string((*rows)[count - 1].first) + "\"}");
    }
    hooks_.post([answer, done = std::move(done)] { done(*answer); });
  });
}

void AdminService::report_usage(const AdminCall& call, AdminDone done) {
  const auto refuse = [&](Error error) {
    AdminAnswer answer = failure(std::move(error));
    done(answer);
  };
  if (call.noun == AdminNoun::tenant_usage && !find(call.id)) return refuse(not_found("tenant"));
  const Result<UsageQuery> query = parse_usage_query(call.query, call.id, hooks_.unix_s());
  if (!query) return refuse(query.error());
  if (thread_->num_waiting() >= kAdminCallsWaitingMax)
    return refuse(make_error(Errc::overloaded, "too many admin calls wait"));
  thread_->submit([this, query = *query, done = std::move(done)]() mutable {
    auto answer = std::make_shared<AdminAnswer>();
    const auto write = [&]() -> Result<UsageReport::Page> {
      if (usage_report_) return usage_report_->write(query);
      Result<UsageReport> opened = UsageReport::open(store_path_);
      if (!opened) return opened.error();
      usage_report_.emplace(std::move(*opened));
      return usage_report_->write(query);
    };
    Result<UsageReport::Page> page = write();
    if (page)
      answer->body = std::move(page->body);
    else
      answer->error = page.error();
    if (query.is_csv) answer->content_type = "text/csv; charset=utf-8";
    if (query.is_csv && page) answer->last_id = std::move(page->last_id);
    hooks_.post([answer, done = std::move(done)] { done(*answer); });
  });
}

}  // namespace sluice::gw
