// The typed configuration: one struct per component, defaults in place. load_config.h fills it from
// YAML; sluice.yaml shows every key; settings.h has their names and ranges. Plain values; constant
// after loading (SIGHUP swaps in a new one).
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared/clock.h"

namespace sluice::cfg {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Listen {
  std::string address = "127.0.0.1";  // anything but loopback needs keys
  std::uint16_t port = 8080;          // 0: the system picks one, printed in the ready line
  std::string tls_certificate;        // PEM chain; empty: no TLS
  std::string tls_key;                // PEM private key
  bool operator==(const Listen&) const = default;
};

// What bounds a client. Raising one costs memory or lets slow clients hold more of it.
struct HttpLimits {
  std::uint32_t connections_max = 12000;
  std::uint32_t header_bytes_max = 16 << 10;
  std::uint32_t body_bytes_max = 8 << 20;
  milliseconds header_timeout{10'000};  // from the first byte of a request head to its end
  milliseconds body_timeout{30'000};    // from the end of the head to the end of the body
  milliseconds idle_timeout{75'000};    // between requests of a kept-alive connection
  milliseconds write_timeout{30'000};   // a write that makes no progress: the client is gone
  milliseconds stream_commit{
      15'000};  // no token so long: status line and a keep-alive comment are
                // sent, then a comment each such interval. Below your proxy's read timeout
  bool operator==(const HttpLimits&) const = default;
};

struct QueueLimits {
  std::uint32_t requests_max = 4096;     // waiting, all tenants
  std::uint64_t tokens_max = 4'000'000;  // prompt + reserved output of those waiting
  milliseconds wait_max{60'000};         // then 503 overloaded
  milliseconds drain_timeout{30'000};    // at SIGTERM: running requests may finish for so long
  bool operator==(const QueueLimits&) const = default;
};

struct Tokenizing {
  std::uint32_t inline_bytes_max = 8 << 10;  // longer texts go to the pool
  std::uint32_t pool_threads = 1;            // 1..16
  bool operator==(const Tokenizing&) const = default;
};

// A number of limits. Nothing: no limit (in an override: as without it); 0: nothing is allowed.
using Limit = std::optional<std::uint64_t>;
struct LimitValues {
  Limit requests_per_minute;
  Limit tokens_per_minute;  // prompt + output
  Limit input_tokens_per_minute;
  Limit output_tokens_per_minute;
  Limit tokens_per_day;  // UTC
  Limit monthly_budget;  // cost units (Model's prices); months in UTC
  Limit concurrent_requests;
  Limit concurrent_kv_tokens;
  Limit output_tokens_max;
  bool operator==(const LimitValues&) const = default;
};

// What it names is counted for this model alone and no longer in the general counter.
struct ModelOverride : LimitValues {
  std::string model;
  bool operator==(const ModelOverride&) const = default;
};

// In place of the general limits, or of those of the model, until its end. Later ones win.
struct TemporaryOverride : LimitValues {
  std::string model;       // empty: the general limits
  std::int64_t until = 0;  // Unix time in seconds, exclusive
  bool operator==(const TemporaryOverride&) const = default;
};

// Limits of a tenant or of one of its keys.
struct Limits : LimitValues {
  bool shadow = false;  // counts, never refuses
  std::vector<ModelOverride> model_overrides;
  std::vector<TemporaryOverride> temporary_overrides;
  bool operator==(const Limits&) const = default;
};

enum class Reserving : std::uint8_t { exact, incremental, quantile };  // ledger_limits.h

struct TenantLimits : Limits {
  Reserving reserve = Reserving::exact;       // how output is reserved
  std::uint32_t output_tokens_default = 256;  // where the client gives no max_tokens
  bool operator==(const TenantLimits&) const = default;
};

struct ApiKey {
  std::string name;                       // for logs and metrics
  std::array<std::uint8_t, 32> sha256{};  // of the key; YAML has it as 64 hex digits
  std::vector<std::string> scopes;        // what it may do (kScopeNames); empty: everything
  Limits limits;                          // beside those of its tenant
  bool operator==(const ApiKey&) const = default;
};

struct Tenant {
  std::string name = "default";
  std::vector<ApiKey> keys;
  std::vector<std::string> models;     // allowed; empty: all
  std::uint32_t priority_ceiling = 0;  // smallest x-sluice-priority value that is honoured
  std::string parent;                  // another tenant, whose limits and block hold too
  std::string security_class;          // what models with `security_classes` ask for
  std::uint32_t weight = 1;            // of its share in service, against other tenants
  bool blocked = false;                // its keys, and those of tenants below it, are refused
  TenantLimits limits;
  bool operator==(const Tenant&) const = default;
};
// One tenant of a configuration that is made or replaced, or is gone.
struct TenantUpdate {
  std::string name;
  std::optional<Tenant> tenant;  // of this name; nothing: there is none any longer
  bool operator==(const TenantUpdate&) const = default;
};

struct Cors {
  std::vector<std::string> origins;  // exact, or "*"; empty: localhost on any port
  bool operator==(const Cors&) const = default;
};

enum class ModelKind : std::uint8_t {
  canned,  // answers made of a hash; no weights
  llama,   // a Hugging Face directory or GGUF file of the Llama family
};

enum class DeviceKind : std::uint8_t { cpu, cuda };

enum class Quantize : std::uint8_t { none, int8, int4 };

enum class KvType : std::uint8_t { f32, f16, int8 };

struct Model {
  std::string name = "brook";
  ModelKind kind = ModelKind::llama;
  std::string path;                     // directory or GGUF file; empty: the built-in one
  std::string tokenizer;                // its file; empty: of the model
  std::string chat_template;            // family name; empty: the model's own
  std::uint32_t workers = 1;            // processes
  std::uint32_t context_tokens = 4096;  // longest prompt + output
  std::uint32_t block_tokens = 16;      // slots of a KV block: 8, 16, 32, 64
  std::uint32_t num_blocks = 4096;      // KV blocks of one worker
  std::uint32_t sequences_max = 64;     // in one step; <= kBatchSequencesMax
  std::uint32_t step_tokens_max = 512;  // token budget of a step
  bool prefix_cache = true;
  Quantize quantize = Quantize::none;         // llama: matrices that are stored as floats, on load
  std::vector<std::string> security_classes;  // of tenants that may use it; empty: all
  KvType kv_type = KvType::f32;               // llama: of the KV cache; cuda has f32 alone
  DeviceKind device = DeviceKind::cpu;  // llama: cuda needs a build with its toolkit, and a GPU
  std::uint32_t threads = 0;            // llama on cpu: of a worker; 0: one per core
  std::string kernels = "auto";         // llama on cpu: auto, scalar, avx2, avx512, avx512vnni
  // Cost units per token, for monthly_budget.
  std::uint64_t price_input = 0;
  std::uint64_t price_cached = 0;  // prompt tokens found in the prefix cache; at most price_input
  std::uint64_t price_output = 0;
  std::uint64_t canned_step_us = 0;  // canned: a step takes at least so long (benches, tests)
  std::string
      canned_crash_marker;  // canned: a prompt that contains this text crashes the worker (tests)
  bool operator==(const Model&) const = default;
};

struct Supervision {
  milliseconds stall_floor{2'000};  // a step may always take so long
  std::uint32_t stall_factor = 20;  // ... and so many times its predicted duration
  milliseconds restart_delay{100};  // first back-off; doubles, reset after a minute of health
  milliseconds restart_delay_max{10'000};
  milliseconds start_timeout{
      300'000};  // from the start of a process to its first word: loading, hashing
  bool operator==(const Supervision&) const = default;
};

// When a tenant that hurts others is throttled or refused (gateway/core/tenant_breaker.h).
struct TenantBreakers {
  bool enabled = true;
  milliseconds window{10'000};
  std::uint32_t share_permille = 3000;    // of its fair share of KV memory or prefill
  milliseconds contended_min{1'000};      // others waited so long within the window
  std::uint32_t bad_ends_permille = 800;  // of the requests that ended
  std::uint32_t bad_ends_min = 50;
  std::uint32_t long_prompt_permille = 500;  // of the context: long from here on
  std::uint32_t long_prompts_max = 8;        // in the window
  milliseconds open_min{5'000};
  milliseconds open_max{300'000};
  std::uint32_t probes = 2;
  bool operator==(const TenantBreakers&) const = default;
};

// When a worker gets no new work, and how much work may be done twice (worker_breaker.h).
struct WorkerBreakers {
  bool enabled = true;
  std::uint32_t failures_max = 3;    // in a row
  std::uint32_t bad_logits_max = 2;  // in a row
  std::uint32_t slow_factor = 8;     // times what steps of that size take
  milliseconds slow_floor{100};
  std::uint32_t slow_steps_max = 8;  // of 32
  milliseconds open_min{5'000};
  milliseconds open_max{300'000};
  std::uint32_t probes = 3;
  std::uint32_t retry_permille = 100;  // of first dispatches
  std::uint32_t retries_burst = 256;
  bool operator==(const WorkerBreakers&) const = default;
};

struct Breakers {
  TenantBreakers tenants;
  WorkerBreakers workers;
  bool operator==(const Breakers&) const = default;
};

// Where limits are counted. local: by this gateway alone. redis: several gateways share them
// (gateway/core/lease_book.h).
enum class QuotaStoreKind : std::uint8_t { local, redis };
enum class QuotaMode : std::uint8_t {
  leased,       // a gateway holds blocks of what is free: admission waits for nothing
  synchronous,  // each admission is charged in the store first
};

struct QuotaStore {
  QuotaStoreKind kind = QuotaStoreKind::local;
  std::string address = "127.0.0.1";  // IP address, host name or path of a Unix socket
  std::uint16_t port = 6379;
  std::uint32_t database = 0;
  std::string username;
  std::string password_file;  // empty: $SLUICE_REDIS_PASSWORD, else none
  std::string key_prefix = "sluice:";
  QuotaMode mode = QuotaMode::leased;
  milliseconds lease_time{3'000};
  std::uint32_t block_permille = 50;
  milliseconds connect_timeout{1'000};
  milliseconds command_timeout{500};
  milliseconds wait_max{1'000};
  bool operator==(const QuotaStore&) const = default;
};

struct Config {
  std::string state_dir;  // journal, lock; empty: $XDG_STATE_HOME/sluice or /var/lib/sluice as root
  Listen listen;
  HttpLimits http;
  QueueLimits queue;
  Tokenizing tokenizing;
  Cors cors;
  std::vector<Model> models{Model{}};
  std::vector<Tenant> tenants;  // empty: one tenant "default" without key, loopback only
  TenantLimits default_limits;  // of the tenant "default"
  Breakers breakers;
  QuotaStore quota_store;
  Supervision supervision;
  std::uint32_t journal_slots = 16384;  // live sequences; 256 bytes each
  std::size_t ring_bytes = 8u << 20;    // of each ring; power of two, 64 KiB..64 MiB
  bool confine_processes = true;        // system call filters (shared/confinement.h)
  std::string log_level = "info";       // error, warn, info, debug
  bool operator==(const Config&) const = default;
};

}  // namespace sluice::cfg
