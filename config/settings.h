// The table of settings: one visit_settings() per struct names every key with its type and allowed
// range. Reader, printer and key list are visitors of this table, so a key exists in all of them or
// in none. Add a setting here, in config.h and in sluice.yaml (a test compares the three).
//
// A visitor has these members; `field` is read or written:
//   integer(key, field, min, max)    limit(key, field, max)           bytes(key, field, min, max)
//   duration(key, field, min, max)   boolean(key, field)              text(key, field, bytes_max)
//   choice(key, field, names)        name_choice(key, field, names)   digest(key, field)
//   section(key, field)              list(key, field, count_max)
//   texts(key, field, count_max, bytes_max)
#pragma once

#include <array>
#include <chrono>
#include <string_view>
#include <type_traits>

#include "config/config.h"
#include "shared/limits.h"

namespace sluice::cfg {

using namespace std::chrono_literals;

inline constexpr std::size_t kPathBytesMax = 4096;
inline constexpr std::size_t kNameBytesMax = 128;
inline constexpr std::size_t kMarkerBytesMax = 256;
inline constexpr std::size_t kTenantsMax = 1000;
inline constexpr std::size_t kKeysPerTenantMax = 100;
inline constexpr std::size_t kOriginsMax = 100;
inline constexpr std::size_t kTenantDepthMax = 7;  // a tenant and those above it
inline constexpr std::size_t kTemporaryOverridesMax = 16;
inline constexpr std::size_t kSecurityClassesMax = 16;
inline constexpr std::uint32_t kWeightMax = 1000;
inline constexpr std::int64_t kUnixSecondsMax = 253'402'300'799;  // the end of the year 9999
inline constexpr std::uint64_t kPriceMax = 1'000'000;
inline constexpr std::uint64_t kBudgetMax = 1'000'000'000'000'000'000;
inline constexpr std::uint64_t kTokensMax = 1'000'000'000'000;
inline constexpr std::array<std::string_view, 4> kLogLevels{"error", "warn", "info", "debug"};
inline constexpr std::array<std::string_view, 2> kModelKinds{"canned",
                                                             "llama"};  // in the order of ModelKind
inline constexpr std::array<std::string_view, 3> kQuantizeNames{
    "none", "int8", "int4"};  // in the order of Quantize
inline constexpr std::array<std::string_view, 3> kKvTypeNames{"f32", "f16",
                                                              "int8"};  // in the order of KvType
inline constexpr std::array<std::string_view, 2> kDeviceKinds{
    "cpu", "cuda"};  // in the order of DeviceKind
inline constexpr std::array<std::string_view, 3> kReservingNames{
    "exact", "incremental", "quantile"};  // in the order of Reserving
inline constexpr std::array<std::string_view, 2> kQuotaStoreKinds{
    "local", "redis"};  // in the order of QuotaStoreKind
inline constexpr std::array<std::string_view, 2> kQuotaModes{
    "leased", "synchronous"};  // in the order of QuotaMode
// What an API key may be allowed to do: generate and tokenize, list models, read its quota.
inline constexpr std::array<std::string_view, 3> kScopeNames{"model.request", "model.read",
                                                             "quota.read"};
inline constexpr std::array<std::string_view, 5> kKernelNames{"auto", "scalar", "avx2", "avx512",
                                                              "avx512vnni"};
inline constexpr std::array<std::string_view, 5> kTemplateNames{"", "plain", "chatml", "llama2",
                                                                "llama3"};

// The table serves readers (S) and printers (const S).
template <class S, class T>
concept Is = std::is_same_v<std::remove_const_t<S>, T>;

template <class V, Is<Listen> S>
void visit_settings(V& v, S& s) {
  v.text("address", s.address, kNameBytesMax);
  v.integer("port", s.port, 0, 65535);
  v.text("tls_certificate", s.tls_certificate, kPathBytesMax);
  v.text("tls_key", s.tls_key, kPathBytesMax);
}

template <class V, Is<HttpLimits> S>
void visit_settings(V& v, S& s) {
  v.integer("connections_max", s.connections_max, 1, 1'000'000);
  v.bytes("header_bytes_max", s.header_bytes_max, 1u << 10, 1u << 20);
  v.bytes("body_bytes_max", s.body_bytes_max, 1u << 10, 256u << 20);
  v.duration("header_timeout", s.header_timeout, 100ms, 10min);
  v.duration("body_timeout", s.body_timeout, 100ms, 1h);
  v.duration("idle_timeout", s.idle_timeout, 100ms, 1h);
  v.duration("write_timeout", s.write_timeout, 100ms, 1h);
  v.duration("stream_commit", s.stream_commit, 10ms, 10min);
}

template <class V, Is<QueueLimits> S>
void visit_settings(V& v, S& s) {
  v.integer("requests_max", s.requests_max, 1, 1'000'000);
  v.integer("tokens_max", s.tokens_max, 1, kTokensMax);
  v.duration("wait_max", s.wait_max, 1ms, 24h);
  v.duration("drain_timeout", s.drain_timeout, 0ms, 24h);
}

template <class V, Is<Tokenizing> S>
void visit_settings(V& v, S& s) {
  v.bytes("inline_bytes_max", s.inline_bytes_max, 0, 1u << 20);
  v.integer("pool_threads", s.pool_threads, 1, 16);
}

// A base class as constant as the whole.
template <class Base, class S>
auto& as_base(S& s) {
  if constexpr (std::is_const_v<S>) {
    return static_cast<const Base&>(s);
  } else {
    return static_cast<Base&>(s);
  }
}

template <class V, Is<LimitValues> S>
void visit_settings(V& v, S& s) {
  v.limit("requests_per_minute", s.requests_per_minute, 1'000'000'000);
  v.limit("tokens_per_minute", s.tokens_per_minute, kTokensMax);
  v.limit("input_tokens_per_minute", s.input_tokens_per_minute, kTokensMax);
  v.limit("output_tokens_per_minute", s.output_tokens_per_minute, kTokensMax);
  v.limit("tokens_per_day", s.tokens_per_day, kTokensMax);
  v.limit("monthly_budget", s.monthly_budget, kBudgetMax);
  v.limit("concurrent_requests", s.concurrent_requests, 1'000'000);
  v.limit("concurrent_kv_tokens", s.concurrent_kv_tokens, kTokensMax);
  v.limit("output_tokens_max", s.output_tokens_max, kContextTokensMax);
}

template <class V, Is<ModelOverride> S>
void visit_settings(V& v, S& s) {
  v.text("model", s.model, kNameBytesMax);
  visit_settings(v, as_base<LimitValues>(s));
}

template <class V, Is<TemporaryOverride> S>
void visit_settings(V& v, S& s) {
  v.text("model", s.model, kNameBytesMax);
  v.integer("until", s.until, 1, kUnixSecondsMax);
  visit_settings(v, as_base<LimitValues>(s));
}

template <class V, Is<Limits> S>
void visit_settings(V& v, S& s) {
  visit_settings(v, as_base<LimitValues>(s));
  v.boolean("shadow", s.shadow);
  v.list("model_overrides", s.model_overrides, kModelsMax);
  v.list("temporary_overrides", s.temporary_overrides, kTemporaryOverridesMax);
}

template <class V, Is<TenantLimits> S>
void visit_settings(V& v, S& s) {
  visit_settings(v, as_base<Limits>(s));
  v.choice("reserve", s.reserve, kReservingNames);
  v.integer("output_tokens_default", s.output_tokens_default, 1, kContextTokensMax);
}

template <class V, Is<ApiKey> S>
void visit_settings(V& v, S& s) {
  v.text("name", s.name, kNameBytesMax);
  v.digest("sha256", s.sha256);
  v.texts("scopes", s.scopes, kScopeNames.size(), kNameBytesMax);
  v.section("limits", s.limits);
}

template <class V, Is<Tenant> S>
void visit_settings(V& v, S& s) {
  v.text("name", s.name, kNameBytesMax);
  v.list("keys", s.keys, kKeysPerTenantMax);
  v.texts("models", s.models, kModelsMax, kNameBytesMax);
  v.integer("priority_ceiling", s.priority_ceiling, 0, 1000);
  v.text("parent", s.parent, kNameBytesMax);
  v.text("security_class", s.security_class, kNameBytesMax);
  v.integer("weight", s.weight, 1, kWeightMax);
  v.boolean("blocked", s.blocked);
  v.section("limits", s.limits);
}

template <class V, Is<Cors> S>
void visit_settings(V& v, S& s) {
  v.texts("origins", s.origins, kOriginsMax, 256);
}

template <class V, Is<Model> S>
void visit_settings(V& v, S& s) {
  v.text("name", s.name, kNameBytesMax);
  v.choice("kind", s.kind, kModelKinds);
  v.text("path", s.path, kPathBytesMax);
  v.text("tokenizer", s.tokenizer, kPathBytesMax);
  v.name_choice("chat_template", s.chat_template, kTemplateNames);
  v.integer("workers", s.workers, 1, kWorkersMax);
  v.integer("context_tokens", s.context_tokens, 16, kContextTokensMax);
  v.integer("block_tokens", s.block_tokens, 8, 64);
  v.integer("num_blocks", s.num_blocks, 1, 1u << 24);
  v.integer("sequences_max", s.sequences_max, 1, kBatchSequencesMax);
  v.integer("step_tokens_max", s.step_tokens_max, 1, 1u << 16);
  v.boolean("prefix_cache", s.prefix_cache);
  v.choice("quantize", s.quantize, kQuantizeNames);
  v.texts("security_classes", s.security_classes, kSecurityClassesMax, kNameBytesMax);
  v.choice("kv_type", s.kv_type, kKvTypeNames);
  v.choice("device", s.device, kDeviceKinds);
  v.integer("threads", s.threads, 0, 64);
  v.name_choice("kernels", s.kernels, kKernelNames);
  v.integer("price_input", s.price_input, 0, kPriceMax);
  v.integer("price_cached", s.price_cached, 0, kPriceMax);
  v.integer("price_output", s.price_output, 0, kPriceMax);
  v.integer("canned_step_us", s.canned_step_us, 0, 60'000'000);
  v.text("canned_crash_marker", s.canned_crash_marker, kMarkerBytesMax);
}

template <class V, Is<Supervision> S>
void visit_settings(V& v, S& s) {
  v.duration("stall_floor", s.stall_floor, 10ms, 1h);
  v.integer("stall_factor", s.stall_factor, 2, 10'000);
  v.duration("restart_delay", s.restart_delay, 1ms, 10min);
  v.duration("restart_delay_max", s.restart_delay_max, 1ms, 1h);
  v.duration("start_timeout", s.start_timeout, 100ms, 24h);
}

template <class V, Is<TenantBreakers> S>
void visit_settings(V& v, S& s) {
  v.boolean("enabled", s.enabled);
  v.duration("window", s.window, 100ms, 1h);
  v.integer("share_permille", s.share_permille, 1, 1'000'000);
  v.duration("contended_min", s.contended_min, 1ms, 1h);
  v.integer("bad_ends_permille", s.bad_ends_permille, 1, 1000);
  v.integer("bad_ends_min", s.bad_ends_min, 1, 1'000'000);
  v.integer("long_prompt_permille", s.long_prompt_permille, 1, 1000);
  v.integer("long_prompts_max", s.long_prompts_max, 1, 1'000'000);
  v.duration("open_min", s.open_min, 10ms, 1h);
  v.duration("open_max", s.open_max, 10ms, 24h);
  v.integer("probes", s.probes, 1, 1000);
}

template <class V, Is<WorkerBreakers> S>
void visit_settings(V& v, S& s) {
  v.boolean("enabled", s.enabled);
  v.integer("failures_max", s.failures_max, 1, 1000);
  v.integer("bad_logits_max", s.bad_logits_max, 1, 1000);
  v.integer("slow_factor", s.slow_factor, 2, 10'000);
  v.duration("slow_floor", s.slow_floor, 1ms, 1h);
  v.integer("slow_steps_max", s.slow_steps_max, 1, 32);
  v.duration("open_min", s.open_min, 10ms, 1h);
  v.duration("open_max", s.open_max, 10ms, 24h);
  v.integer("probes", s.probes, 1, 1000);
  v.integer("retry_permille", s.retry_permille, 0, 1000);
  v.integer("retries_burst", s.retries_burst, 1, 1'000'000);
}

template <class V, Is<Breakers> S>
void visit_settings(V& v, S& s) {
  v.section("tenants", s.tenants);
  v.section("workers", s.workers);
}

template <class V, Is<QuotaStore> S>
void visit_settings(V& v, S& s) {
  v.choice("kind", s.kind, kQuotaStoreKinds);
  v.text("address", s.address, kNameBytesMax);
  v.integer("port", s.port, 1, 65535);
  v.integer("database", s.database, 0, 1'000'000);
  v.text("username", s.username, kNameBytesMax);
  v.text("password_file", s.password_file, kPathBytesMax);
  v.text("key_prefix", s.key_prefix, kNameBytesMax);
  v.choice("mode", s.mode, kQuotaModes);
  v.duration("lease_time", s.lease_time, 500ms, 30s);
  v.integer("block_permille", s.block_permille, 0, 1000);
  v.duration("connect_timeout", s.connect_timeout, 10ms, 10s);
  v.duration("command_timeout", s.command_timeout, 10ms, 10s);
  v.duration("wait_max", s.wait_max, 10ms, 1min);
}

template <class V, Is<Config> S>
void visit_settings(V& v, S& s) {
  v.text("state_dir", s.state_dir, kPathBytesMax);
  v.section("listen", s.listen);
  v.section("http", s.http);
  v.section("queue", s.queue);
  v.section("tokenizing", s.tokenizing);
  v.section("cors", s.cors);
  v.list("models", s.models, kModelsMax);
  v.list("tenants", s.tenants, kTenantsMax);
  v.section("default_limits", s.default_limits);
  v.section("breakers", s.breakers);
  v.section("quota_store", s.quota_store);
  v.section("supervision", s.supervision);
  v.integer("journal_slots", s.journal_slots, 64, 1u << 20);
  v.bytes("ring_bytes", s.ring_bytes, kRingBytesMin, kRingBytesMax);
  v.boolean("confine_processes", s.confine_processes);
  v.name_choice("log_level", s.log_level, kLogLevels);
}

}  // namespace sluice::cfg
