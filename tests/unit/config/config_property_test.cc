// print_config and parse_config are inverse: random configurations, drawn within the table's ranges
// and made to fit its relations, come back equal. TEST_SEED replays a run.
#include <gtest/gtest.h>

#include <cstdlib>

#include "config/load_config.h"
#include "config/settings.h"
#include "shared/random.h"

namespace sluice::cfg {
namespace {

// One more visitor of the table: writes random values.
class Randomizer {
 public:
  explicit Randomizer(std::uint64_t seed) : seed_(seed) {}

  template <class T>
  void integer(std::string_view, T& field, std::uint64_t min, std::uint64_t max) {
    field = static_cast<T>(between(min, max));
  }
  void limit(std::string_view, Limit& field, std::uint64_t max) {
    field.reset();
    if (below(3) > 0) field = between(0, max);
  }
  template <class T>
  void bytes(std::string_view, T& field, std::uint64_t min, std::uint64_t max) {
    // Round values exercise the units.
    const std::uint64_t unit = below(2) == 0 ? 1 : 1024;
    field = static_cast<T>(std::max(min, between(min, max) / unit * unit));
  }
  void duration(std::string_view, milliseconds& field, milliseconds min, milliseconds max) {
    const std::uint64_t unit = std::array<std::uint64_t, 4>{1, 1000, 60'000, 3'600'000}[below(4)];
    const auto drawn =
        between(static_cast<std::uint64_t>(min.count()), static_cast<std::uint64_t>(max.count()));
    field = std::max(min, milliseconds(static_cast<std::int64_t>(drawn / unit * unit)));
  }
  void boolean(std::string_view, bool& field) { field = below(2) == 0; }
  void text(std::string_view, std::string& field, std::size_t bytes_max) {
    field = random_text(std::min<std::size_t>(bytes_max, 30));
  }
  template <class E>
  void choice(std::string_view, E& field, std::span<const std::string_view> names) {
    field = static_cast<E>(below(names.size()));
  }
  void name_choice(std::string_view, std::string& field, std::span<const std::string_view> names) {
    field = names[below(names.size())];
  }
  void digest(std::string_view, std::array<std::uint8_t, 32>& field) {
    for (auto& byte : field) byte = static_cast<std::uint8_t>(below(256));
  }
  void texts(std::string_view, std::vector<std::string>& field, std::size_t, std::size_t) {
    field.clear();
    for (std::uint64_t i = below(4); i > 0; --i) field.push_back(random_text(20));
  }
  template <class S>
  void section(std::string_view, S& field) {
    visit_settings(*this, field);
  }
  template <class S>
  void list(std::string_view, std::vector<S>& field, std::size_t) {
    field.clear();
    for (std::uint64_t i = below(4); i > 0; --i) visit_settings(*this, field.emplace_back());
  }

  std::uint64_t below(std::uint64_t bound) { return mix64(seed_ ^ mix64(++draw_)) % bound; }

 private:
  std::uint64_t between(std::uint64_t min, std::uint64_t max) {
    const std::uint64_t kind = below(8);
    return kind == 0 ? min : kind == 1 ? max : min + below(max - min + 1);
  }
  std::string random_text(std::size_t bytes_max) {
    static constexpr std::array<std::string_view, 18> kParts{
        "a",  "Z", "0", " ",  "\"", "\\", "'", "#",      ":",
        "- ", "{", "]", "&x", "*x", "!",  "%", "\u00e9", "\u6f22\U0001f600"};
    std::string out;
    for (std::uint64_t i = below(12); i > 0; --i) {
      const std::string_view part = kParts[below(kParts.size())];
      if (out.size() + part.size() <= bytes_max) out += part;
    }
    return out;
  }

  std::uint64_t seed_;
  std::uint64_t draw_ = 0;
};

// Makes the relations of validate() hold without losing the random values that it does not touch.
void fit_relations(Config& c, Randomizer& random) {
  c.listen.address = c.tenants.empty() ? "::1" : "0.0.0.0";
  c.listen.tls_certificate = c.listen.tls_key = random.below(2) == 0 ? "" : "/etc/hostname";
  c.ring_bytes = kRingBytesMax;
  c.cors.origins.assign(random.below(2), "https://example.com:8443");
  c.breakers.tenants.open_min = std::min(c.breakers.tenants.open_min, c.breakers.tenants.open_max);
  c.breakers.workers.open_min = std::min(c.breakers.workers.open_min, c.breakers.workers.open_max);
  c.breakers.tenants.contended_min =
      std::min(c.breakers.tenants.contended_min, c.breakers.tenants.window);
  c.quota_store.password_file = random.below(2) == 0 ? "" : "/etc/hostname";
  if (c.quota_store.address.empty()) c.quota_store.address = "redis";
  c.quota_store.command_timeout = std::min(
      c.quota_store.command_timeout, std::min(milliseconds(1000), c.quota_store.lease_time / 2));
  std::swap(c.supervision.restart_delay, c.supervision.restart_delay_max);
  c.supervision.restart_delay =
      std::min(c.supervision.restart_delay, c.supervision.restart_delay_max);
  if (c.models.empty()) c.models.emplace_back();
  for (std::size_t i = 0; i < c.models.size(); ++i) {
    Model& model = c.models[i];
    model.name += std::to_string(i);
    model.tokenizer = "";
    model.path = model.kind == ModelKind::llama ? std::string("/") : std::string();
    if (model.kind != ModelKind::llama) model.device = DeviceKind::cpu;
    if (model.device == DeviceKind::cuda) model.kv_type = KvType::f32;
    model.price_cached = std::min(model.price_cached, model.price_input);
    model.workers = model.workers % 16 + 1;
    model.block_tokens = 8u << random.below(4);
    model.num_blocks = std::max(model.num_blocks, model.context_tokens / 8 + 1);
    model.step_tokens_max = std::max(model.step_tokens_max, model.sequences_max);
  }
  const auto fit_overrides = [&](Limits& limits) {
    limits.model_overrides.resize(std::min(limits.model_overrides.size(), c.models.size()));
    for (std::size_t i = 0; i < limits.model_overrides.size(); ++i)
      limits.model_overrides[i].model = c.models[i].name;
    for (TemporaryOverride& temporary : limits.temporary_overrides)
      temporary.model = random.below(2) == 0 ? "" : c.models[0].name;
  };
  const auto fit_limits = [&](TenantLimits& limits) {
    if (limits.output_tokens_max.value_or(0) > 0)
      limits.output_tokens_default = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(limits.output_tokens_default, *limits.output_tokens_max));
    fit_overrides(limits);
  };
  fit_limits(c.default_limits);
  for (std::size_t i = 0; i < c.tenants.size(); ++i) {
    Tenant& tenant = c.tenants[i];
    tenant.name += std::to_string(i);
    tenant.models.assign(random.below(2), c.models[0].name);
    tenant.parent = i > 0 && random.below(2) == 0 ? c.tenants[i - 1].name : "";
    if (tenant.keys.empty()) tenant.keys.emplace_back();
    for (std::size_t k = 0; k < tenant.keys.size(); ++k) {
      tenant.keys[k].name += std::to_string(k);
      tenant.keys[k].sha256[0] = static_cast<std::uint8_t>(i);
      tenant.keys[k].sha256[1] = static_cast<std::uint8_t>(k + 1);
      tenant.keys[k].scopes.assign(random.below(2), std::string(kScopeNames[random.below(3)]));
      fit_overrides(tenant.keys[k].limits);
    }
    fit_limits(tenant.limits);
  }
}

TEST(ConfigProperty, PrintedConfigurationsParseToTheSameValues) {
  const char* named = std::getenv("TEST_SEED");
  const std::uint64_t seed = named == nullptr ? 1 : std::strtoull(named, nullptr, 10);
  for (std::uint64_t run = 0; run < 400; ++run) {
    Randomizer random(seed + run);
    Config config;
    visit_settings(random, config);
    fit_relations(config, random);
    const std::string printed = print_config(config, Secrets::full);
    const auto again = parse_config(printed, "printed");
    ASSERT_TRUE(again) << "TEST_SEED=" << seed + run << ": " << again.error().detail << "\n"
                       << printed;
    ASSERT_EQ(*again, config) << "TEST_SEED=" << seed + run << "\n" << printed;
    ASSERT_EQ(print_config(*again, Secrets::full), printed);
  }
}

}  // namespace
}  // namespace sluice::cfg
