// A table of commands: each is one HTTP call.
#include "gateway/cli/admin_commands.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "config/load_config.h"
#include "gateway/cli/answer_table.h"
#include "gateway/cli/http_call.h"

namespace sluice::gw {
namespace {

enum class Takes : std::uint8_t {
  nothing,
  fields,      // NAME=VALUE of the body
  name,        // and fields: the new one's id or name first
  overlap,     // --overlap SECONDS
  page,        // --limit, --after
  parameters,  // NAME=VALUE of the query
};

struct Command {
  std::string_view group, name;
  std::string_view method;
  std::string_view path;      // {} stands for the first argument
  std::string_view argument;  // its name; empty: none; one in brackets may be left out
  Takes takes;
  std::string_view member;  // of Takes::name
  std::string_view help;
};

constexpr std::array kCommands = std::to_array<Command>({
    {"tenant", "list", "GET", "/admin/v1/tenants", "", Takes::page, "", "List tenants"},
    {"tenant", "show", "GET", "/admin/v1/tenants/{}", "TENANT", Takes::nothing, "",
     "Show a tenant"},
    {"tenant", "create", "POST", "/admin/v1/tenants", "", Takes::name, "id",
     "Make a tenant, with fields such as parent=ID weight=3 models=a,b"},
    {"tenant", "set", "PATCH", "/admin/v1/tenants/{}", "TENANT", Takes::fields, "",
     "Change a tenant: is_blocked=true, parent=none"},
    {"tenant", "delete", "DELETE", "/admin/v1/tenants/{}", "TENANT", Takes::nothing, "",
     "Remove a tenant with its keys"},
    {"quota", "show", "GET", "/admin/v1/tenants/{}/quota", "TENANT", Takes::nothing, "",
     "Show limits and what is used, reserved and left"},
    {"quota", "set", "PATCH", "/admin/v1/tenants/{}/quota", "TENANT", Takes::fields, "",
     "Change limits: tokens_per_minute=5000 requests_per_minute=none shadow=true"},
    {"key", "list", "GET", "/admin/v1/tenants/{}/keys", "TENANT", Takes::page, "",
     "List the keys of a tenant"},
    {"key", "show", "GET", "/admin/v1/keys/{}", "KEY", Takes::nothing, "", "Show a key"},
    {"key", "create", "POST", "/admin/v1/tenants/{}/keys", "TENANT", Takes::name, "name",
     "Make a key; it is printed once"},
    {"key", "set", "PATCH", "/admin/v1/keys/{}", "KEY", Takes::fields, "",
     "Change a key: scopes=model.request,model.read expires_at=1800000000"},
    {"key", "rotate", "POST", "/admin/v1/keys/{}/rotate", "KEY", Takes::overlap, "",
     "Make its successor; it is printed once"},
    {"key", "revoke", "DELETE", "/admin/v1/keys/{}", "KEY", Takes::nothing, "",
     "Revoke a key; its running requests end"},
    {"usage", "", "GET", "/admin/v1/usage", "[TENANT]", Takes::parameters, "",
     "Show what was used, with parameters of the route such as NAME=VALUE"},
});

int fail(const std::string& why) {
  std::cerr << "sluice: " << why << '\n';
  return 1;
}

// Members whose value is a list of texts.
bool is_list(std::string_view name) {
  return name == "models" || name == "scopes";
}

std::string list_json(std::string_view text) {
  std::string out = "[";
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    if (out.size() > 1) out.push_back(',');
    out.append(json_text(std::string(item)));
  }
  return out + "]";
}

// none is null; JSON for what begins like it; names of fields whose values are numbers, true or
// false are left to the gateway to judge.
std::string value_json(std::string_view name, const std::string& value) {
  if (value == "none") return "null";
  if (is_list(name) && !value.starts_with('[')) return list_json(value);
  const bool is_number =
      !value.empty() && value.size() < 20 &&
      value.find_first_not_of("0123456789", value[0] == '-' ? 1 : 0) == std::string::npos &&
      value != "-";
  const bool is_text =
      name == "name" || name == "id" || name == "parent" || name == "security_class";
  const bool is_json = value == "true" || value == "false" || value.starts_with('[') ||
                       value.starts_with('{') || is_number;
  return is_json && !is_text ? value : json_text(value);
}

// A path segment or a value of the query.
std::string percent_encoded(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    if (is_plain) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

// Values of headers that users give: nothing that would begin another line.
bool is_header_value(std::string_view text) {
  return text.size() <= 512 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

}  // namespace

struct AdminCommands::State {
  struct Given {
    const Command* command = nullptr;
    CLI::App* app = nullptr;
    std::string argument, name, after, if_match, idempotency_key;
    std::vector<std::string> fields;
    std::uint32_t limit = 0;
    std::uint64_t overlap = 0;
  };
  std::vector<std::unique_ptr<Given>> given;
  std::string url, key_file, authorities;
  bool is_json = false;

  void add(CLI::App& group, const Command& command);
  int run(const Given& chosen) const;
  Result<std::string> admin_key() const;
  Result<HttpCall> call_of(const Given& chosen) const;
};

void AdminCommands::State::add(CLI::App& group, const Command& command) {
  Given& made = *given.emplace_back(std::make_unique<Given>());
  made.command = &command;
  made.app = command.name.empty()
                 ? &group
                 : group.add_subcommand(std::string(command.name), std::string(command.help));
  CLI::App& app = *made.app;
  if (!command.argument.empty()) {
    const bool is_needed = command.argument.front() != '[';
    std::string label(command.argument);
    std::erase_if(label, [](char c) { return c == '[' || c == ']'; });
    app.add_option(label, made.argument, "")->required(is_needed);
  }
  if (command.takes == Takes::name)
    app.add_option("NAME", made.name, "Its " + std::string(command.member))->required();
  if (command.takes == Takes::fields || command.takes == Takes::name)
    app.add_option("FIELDS", made.fields, "NAME=VALUE; none as a value takes it away")
        ->required(command.takes == Takes::fields);
  if (command.takes == Takes::parameters)
    app.add_option("PARAMETERS", made.fields, "NAME=VALUE of the route's query");
  if (command.takes == Takes::overlap)
    app.add_option("--overlap", made.overlap, "Seconds for which the old key stays valid");
  if (command.takes == Takes::page) {
    app.add_option("--limit", made.limit, "Most entries, 1..100");
    app.add_option("--after", made.after, "The last id of the page before");
  }
  if (command.method == "PATCH" || command.method == "DELETE")
    app.add_option("--if-match", made.if_match, "Only if this is still its ETag");
  if (command.method == "POST")
    app.add_option("--idempotency-key", made.idempotency_key, "A repetition makes nothing twice");
  app.add_option("--url", url, "The gateway; default: $SLUICE_URL, else http://127.0.0.1:8080");
  app.add_option("--key-file", key_file,
                 "File whose first line is the admin key; default: $SLUICE_ADMIN_KEY");
  app.add_option("--ca", authorities, "PEM file of the certificates to trust");
  app.add_flag("--json", is_json, "Print the answer as it is");
}

Result<std::string> AdminCommands::State::admin_key() const {
  std::string key = cfg::admin_key_from_environment();
  if (!key_file.empty()) {
    std::ifstream file(key_file);
    if (!file || !std::getline(file, key))
      return make_error(Errc::io_error, key_file + ": cannot be read");
    if (key.ends_with('\r')) key.pop_back();
  }
  if (key.empty() || !is_header_value(key))
    return make_error(Errc::invalid_value,
                      "an admin key is needed: --key-file FILE or $SLUICE_ADMIN_KEY");
  return key;
}

Result<HttpCall> AdminCommands::State::call_of(const Given& chosen) const {
  const Command& command = *chosen.command;
  HttpCall call;
  call.method = command.method;
  call.path = command.path;
  std::vector<std::string> fields = chosen.fields;
  std::string tenant = chosen.argument;
  if (command.takes == Takes::parameters && tenant.find('=') != std::string::npos)
    fields.insert(fields.begin(), std::exchange(tenant, {}));
  if (const std::size_t at = call.path.find("{}"); at != std::string::npos)
    call.path.replace(at, 2, percent_encoded(tenant));
  else if (command.takes == Takes::parameters && !tenant.empty())
    call.path = "/admin/v1/tenants/" + percent_encoded(tenant) + "/usage";
  std::string query;
  const auto add_query = [&](std::string_view name, std::string_view value) {
    query.append(query.empty() ? "?" : "&").append(percent_encoded(name));
    query.append("=").append(percent_encoded(value));
  };
  if (chosen.limit != 0) add_query("limit", std::to_string(chosen.limit));
  if (!chosen.after.empty()) add_query("after", chosen.after);
  std::string body;
  const auto add_member = [&](std::string_view name, const std::string& json) {
    body.append(body.empty() ? "{" : ",").append(json_text(std::string(name)));
    body.append(":").append(json);
  };
  if (command.takes == Takes::name) add_member(command.member, json_text(chosen.name));
  if (command.takes == Takes::overlap)
    add_member("overlap_seconds", std::to_string(chosen.overlap));
  for (const std::string& field : fields) {
    const std::size_t equals = field.find('=');
    if (equals == std::string::npos || equals == 0)
      return make_error(Errc::invalid_value, "'" + field + "' is not NAME=VALUE");
    const std::string name = field.substr(0, equals), value = field.substr(equals + 1);
    if (command.takes == Takes::parameters)
      add_query(name, value);
    else
      add_member(name, value_json(name, value));
  }
  if (!body.empty()) call.body = body + "}";
  call.path += query;
  for (const auto& [name, value] :
       {std::pair("If-Match", chosen.if_match), {"Idempotency-Key", chosen.idempotency_key}}) {
    if (value.empty()) continue;
    if (!is_header_value(value)) return make_error(Errc::invalid_value, "that is no ETag or key");
    call.headers.append(name).append(": ").append(value).append("\r\n");
  }
  return call;
}

int AdminCommands::State::run(const Given& chosen) const {
  const auto wrong_use = [](const Error& error) {
    std::cerr << "sluice: " << error.detail << '\n';
    return 2;
  };
  const std::string address = url.empty() ? cfg::gateway_url() : url;
  Result<HttpTarget> target = parse_url(address);
  if (!target) return wrong_use(target.error());
  target->authorities = authorities;
  Result<HttpCall> call = call_of(chosen);
  if (!call) return wrong_use(call.error());
  const Result<std::string> key = admin_key();
  if (!key) return wrong_use(key.error());
  call->headers += "Authorization: Bearer " + *key + "\r\n";
  const Result<HttpAnswer> answer = send_call(*target, *call);
  if (!answer) return fail(answer.error().detail);
  if (answer->status < 200 || answer->status > 299) return fail(error_text(answer->body));
  const Result<std::string> table = answer_table(answer->body);
  std::cout << (is_json || !table ? answer->body : *table);
  if ((is_json || !table) && !answer->body.ends_with('\n')) std::cout << '\n';
  return 0;
}

AdminCommands::AdminCommands(CLI::App& app, CLI::App& key) : state_(std::make_unique<State>()) {
  CLI::App* const tenant = app.add_subcommand("tenant", "Tenants of a running gateway");
  CLI::App* const quota =
      app.add_subcommand("quota", "Limits of a tenant and what is left of them");
  CLI::App* const usage = app.add_subcommand("usage", "What was used, of one tenant or of all");
  tenant->require_subcommand(1);
  quota->require_subcommand(1);
  for (const Command& command : kCommands)
    state_->add(command.group == "tenant"  ? *tenant
                : command.group == "quota" ? *quota
                : command.group == "key"   ? key
                                           : *usage,
                command);
}

AdminCommands::~AdminCommands() = default;

std::optional<int> AdminCommands::run() {
  for (const auto& given : state_->given)
    if (given->app->parsed()) return state_->run(*given);
  return std::nullopt;
}

}  // namespace sluice::gw
