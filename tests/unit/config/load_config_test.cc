// The loader's answers to good and bad files: each error names file, line, key and allowed range.
#include "config/load_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace sluice::cfg {
namespace {

using namespace std::chrono_literals;

std::string tenant_yaml(const std::string& digest) {
  return "tenants:\n  - name: a\n    keys:\n      - name: k\n        sha256: \"" + digest + "\"\n";
}

TEST(LoadConfig, AnEmptyFileIsAllDefaults) {
  const Config defaults;
  for (const char* text : {"", "# only a comment\n", "---\n"}) {
    const auto config = parse_config(text, "f");
    ASSERT_TRUE(config) << config.error().detail;
    EXPECT_EQ(*config, defaults);
  }
}

TEST(LoadConfig, ReadsEveryKindOfValue) {
  const auto config = parse_config(
      "listen: {address: \"::1\", port: 0}\n"
      "http: {header_timeout: 250ms, body_bytes_max: 1MiB}\n"
      "models:\n  - name: m\n    chat_template: chatml\n    prefix_cache: false\n    kind: canned\n"
      "tenants:\n  - name: t\n    models: [m]\n    keys:\n      - name: k\n        sha256: "
      "00000000000000000000000000000000000000000000000000000000000000fE\n",
      "f");
  ASSERT_TRUE(config) << config.error().detail;
  EXPECT_EQ(config->listen.address, "::1");
  EXPECT_EQ(config->listen.port, 0);
  EXPECT_EQ(config->http.header_timeout, 250ms);
  EXPECT_EQ(config->http.body_bytes_max, 1u << 20);
  ASSERT_EQ(config->models.size(), 1u);
  EXPECT_EQ(config->models[0].chat_template, "chatml");
  EXPECT_FALSE(config->models[0].prefix_cache);
  ASSERT_EQ(config->tenants.size(), 1u);
  EXPECT_EQ(config->tenants[0].keys[0].sha256[31], 0xfe);
}

struct BadFile {
  std::string yaml;
  std::string detail;  // a part of the error's text
  std::string param;
};

TEST(LoadConfig, NamesLineKeyAndRangeOfWhatIsWrong) {
  const std::string digest(64, 'a');
  const std::vector<BadFile> files{
      {"listen:\n  port: 65536\n", "f:2: listen.port: '65536' is out of range; allowed: 0..65535",
       "listen.port"},
      {"listen:\n  prot: 1\n",
       "f:2: listen.prot: unknown key; allowed: address, port, tls_certificate, tls_key",
       "listen.prot"},
      {"listen:\n  port: 1\n  port: 2\n", "f:3: listen.port: given twice", "listen.port"},
      {"listen: {}\nlisten: {}\n", "f:2: listen: given twice", "listen"},
      {"listen:\n  port: \"80\"\n", "f:2: listen.port: wrong type; allowed: 0..65535",
       "listen.port"},
      {"listen:\n  port: -1\n", "f:2: listen.port: '-1' is not a whole number", "listen.port"},
      {"listen:\n  port: 0x50\n", "is not a whole number", "listen.port"},
      {"listen:\n  port: 010\n", "is not a whole number", "listen.port"},
      {"listen:\n  port: [1]\n", "f:2: listen.port: wrong type", "listen.port"},
      {"listen:\n  port:\n", "listen.port: wrong type", "listen.port"},
      {"listen: 3\n", "f:1: listen: not a map", "listen"},
      {"- 1\n", "f:1: not a map", ""},
      {"http:\n  idle_timeout: 10\n", "f:2: http.idle_timeout: '10' is not a duration",
       "http.idle_timeout"},
      {"http:\n  idle_timeout: 2h\n", "out of range; allowed: 100ms..1h", "http.idle_timeout"},
      {"http:\n  body_bytes_max: 8MB\n", "is not a size", "http.body_bytes_max"},
      {"http:\n  body_bytes_max: 1GiB\n", "out of range; allowed: 1KiB..256MiB",
       "http.body_bytes_max"},
      {"models:\n  - prefix_cache: yes\n", "'yes' is not a truth value; allowed: true, false",
       "models[0].prefix_cache"},
      {"models:\n  - kind: gguf\n",
       "f:2: models[0].kind: 'gguf' is not known; allowed: canned, llama", "models[0].kind"},
      {"log_level: loud\n", "allowed: error, warn, info, debug", "log_level"},
      {"models: {}\n", "f:1: models: not a list", "models"},
      {"models: []\n", "f:1: models: empty", "models"},
      {"cors:\n  origins: [ftp://x]\n", "cors.origins[0]: not an origin", "cors.origins[0]"},
      {"cors:\n  origins: [[x]]\n", "cors.origins[0]: wrong type", "cors.origins[0]"},
      {"state_dir: \"a\\nb\"\n", "f:1: state_dir: a control character", "state_dir"},
      {std::string("state_dir: ").append(5000, 'x'), "f:1: state_dir: too long", "state_dir"},
      {tenant_yaml("abc"), "f:5: tenants[0].keys[0].sha256: not a digest; allowed: 64 hex digits",
       "tenants[0].keys[0].sha256"},
      {tenant_yaml(std::string(63, 'a') + "g"), "not a digest", "tenants[0].keys[0].sha256"},
      {"listen: {port: 1\n", "not valid YAML", ""},
      {"a: &x 1\n", "f:1: not valid YAML: an anchor", ""},
      {"log_level: *x\n", "not valid YAML", ""},
      {"log_level: !!str info\n", "a tag is not allowed", ""},
      {"log_level: info\n---\nlog_level: warn\n", "a second document", ""},
      {"? [a]\n: 1\n", "a key that is not text", ""},
      {"\"a\\nb\": 1\n", "f:1: unknown key", ""},
  };
  for (const BadFile& file : files) {
    const auto config = parse_config(file.yaml, "f");
    ASSERT_FALSE(config) << file.yaml;
    EXPECT_EQ(config.error().code, Errc::bad_config);
    EXPECT_NE(config.error().detail.find(file.detail), std::string::npos)
        << file.yaml << "\n  says: " << config.error().detail << "\n  want: " << file.detail;
    EXPECT_EQ(config.error().param, file.param) << file.yaml;
  }
}

TEST(LoadConfig, ChecksRelationsAndNamesTheirLine) {
  const std::string digest(64, 'a');
  const std::vector<BadFile> files{
      {"listen:\n  address: 0.0.0.0\n", "f:2: listen.address: a non-loopback address without keys",
       "listen.address"},
      {"listen:\n  address: localhost\n", "f:2: listen.address: not an IP address",
       "listen.address"},
      {"listen:\n  tls_key: /etc/hostname\n", "f:1: listen.tls_certificate: missing",
       "listen.tls_certificate"},
      {"listen:\n  tls_key: /no/key\n  tls_certificate: /no/chain\n",
       "f:3: listen.tls_certificate: '/no/chain': No such file", "listen.tls_certificate"},
      {"models:\n  - num_blocks: 4\n",
       "f:1: models[0].context_tokens: one sequence would not fit the KV memory; allowed: at most "
       "num_blocks * block_tokens = 64",
       "models[0].context_tokens"},
      {"ring_bytes: 64KiB\nmodels:\n  - context_tokens: 8192\n",
       "f:3: models[0].context_tokens: a full context would not fit the submit ring",
       "models[0].context_tokens"},
      {"ring_bytes: 96KiB\n", "f:1: ring_bytes: not a power of two", "ring_bytes"},
      {"models:\n  - block_tokens: 24\n", "allowed: 8, 16, 32, 64", "models[0].block_tokens"},
      {"ring_bytes: 128KiB\nmodels:\n  - sequences_max: 256\n    context_tokens: 4096\n",
       "f:3: models[0].sequences_max: a step's record would not fit the step ring; allowed: fewer, "
       "or ring_bytes of at least 262144",
       "models[0].sequences_max"},
      {"models:\n  - step_tokens_max: 32\n", "smaller than sequences_max",
       "models[0].step_tokens_max"},
      {"models:\n  - name: a\n  - name: a\n", "f:3: models[1].name: given twice", "models[1].name"},
      {"models:\n  - workers: 40\n    name: a\n  - workers: 40\n    name: b\n",
       "f:4: models[1].workers: too many", "models[1].workers"},
      {"models:\n  - path: /no/model\n", "models[0].path: '/no/model': No such file",
       "models[0].path"},
      {"models:\n  - kind: canned\n    device: cuda\n",
       "f:3: models[0].device: not the CPU; allowed: cpu where kind", "models[0].device"},
      {"models:\n  - device: cuda\n    kv_type: int8\n",
       "f:3: models[0].kv_type: not what a GPU holds; allowed: f32 where device is cuda",
       "models[0].kv_type"},
      {"models:\n  - tokenizer: /no/file\n", "models[0].tokenizer: '/no/file': No such file",
       "models[0].tokenizer"},
      {"tenants:\n  - name: a\n", "f:1: tenants[0].keys: a tenant without keys", "tenants[0].keys"},
      {tenant_yaml(digest).append("      - name: k\n        sha256: ").append(64, 'b'),
       "f:6: tenants[0].keys[1].name: given twice", "tenants[0].keys[1].name"},
      {tenant_yaml(digest) + "      - name: l\n        sha256: " + digest + "\n",
       "f:7: tenants[0].keys[1].sha256: given twice", "tenants[0].keys[1].sha256"},
      {tenant_yaml(std::string(64, '0')), "sha256: missing or zero", "tenants[0].keys[0].sha256"},
      {tenant_yaml(digest) + "    models: [other]\n", "f:6: tenants[0].models[0]: not a configured",
       "tenants[0].models[0]"},
      {"default_limits:\n  output_tokens_max: 10\n",
       "default_limits.output_tokens_default: larger than output_tokens_max; allowed: at most 10",
       "default_limits.output_tokens_default"},
      {tenant_yaml(digest) + "    parent: b\n", "f:6: tenants[0].parent: not a tenant",
       "tenants[0].parent"},
      {tenant_yaml(digest) + "    parent: a\n", "f:6: tenants[0].parent: a cycle, or too deep",
       "tenants[0].parent"},
      {tenant_yaml(digest) + "        scopes: [root]\n",
       "tenants[0].keys[0].scopes[0]: not a scope", "tenants[0].keys[0].scopes[0]"},
      {"default_limits:\n  model_overrides: [{model: other}]\n", "not a configured model",
       "default_limits.model_overrides[0].model"},
      {"default_limits:\n  model_overrides: [{model: brook}, {model: brook}]\n", "given twice",
       "default_limits.model_overrides[1].model"},
      {"default_limits:\n  temporary_overrides: [{tokens_per_day: 1}]\n", "until: missing",
       "default_limits.temporary_overrides[0].until"},
      {"breakers:\n  tenants:\n    open_max: 1s\n", "larger than open_max",
       "breakers.tenants.open_min"},
      {"breakers:\n  workers:\n    open_max: 1s\n", "larger than open_max",
       "breakers.workers.open_min"},
      {"breakers:\n  tenants:\n    window: 500ms\n", "longer than the window",
       "breakers.tenants.contended_min"},
      {"supervision:\n  restart_delay: 20s\n", "larger than restart_delay_max",
       "supervision.restart_delay"},
  };
  for (const BadFile& file : files) {
    const auto config = parse_config(file.yaml, "f");
    ASSERT_FALSE(config) << file.yaml;
    EXPECT_EQ(config.error().code, Errc::bad_config);
    EXPECT_NE(config.error().detail.find(file.detail), std::string::npos)
        << file.yaml << "\n  says: " << config.error().detail << "\n  want: " << file.detail;
    EXPECT_EQ(config.error().param, file.param) << file.yaml;
  }
}

TEST(LoadConfig, KeysAllowANonLoopbackAddress) {
  const auto config =
      parse_config(tenant_yaml(std::string(64, 'a')) + "listen: {address: 0.0.0.0}\n", "f");
  EXPECT_TRUE(config) << config.error().detail;
}

TEST(LoadConfig, NeverRepeatsAMisplacedSecret) {
  const std::string secret = "sk-sluice-0123456789abcdefghijklmnop";
  for (const std::string& yaml :
       {tenant_yaml(secret), "default_limits:\n  output_tokens_max: " + secret + "\n",
        "log_level: " + secret + "\n"}) {
    const auto config = parse_config(yaml, "f");
    ASSERT_FALSE(config);
    EXPECT_EQ(config.error().detail.find(secret), std::string::npos) << config.error().detail;
  }
}

TEST(LoadConfig, BoundsHostileFiles) {
  std::string deep(5000, '[');
  std::string wide = "models: [";
  for (int i = 0; i < 100; ++i) wide += "{},";
  wide += "]";
  std::string nodes = "cors: {origins: [";
  for (int i = 0; i < 300'000; ++i) nodes += "x,";
  std::string keys;
  for (int i = 0; i < 1000; ++i) keys.append("k").append(std::to_string(i)).append(": 1\n");
  const std::string aliases = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n";
  for (const std::string& yaml :
       {deep, wide, nodes + "]}", keys, aliases, std::string(kConfigBytesMax + 1, '#')}) {
    const auto config = parse_config(yaml, "f");
    ASSERT_FALSE(config);
    EXPECT_EQ(config.error().code, Errc::bad_config);
    EXPECT_LT(config.error().detail.size(), 1000u);
  }
}

TEST(LoadConfig, FilesThatCanNotBeReadAreBadConfig) {
  for (const char* path : {"/no/such/file.yaml", "/proc", "/dev/zero"}) {
    const auto config = load_config(path);
    ASSERT_FALSE(config) << path;
    EXPECT_EQ(config.error().code, Errc::bad_config);
    EXPECT_NE(config.error().detail.find(path), std::string::npos);
  }
}

TEST(LoadConfig, PrintsMaskedAndFull) {
  Config config;
  Tenant& tenant = config.tenants.emplace_back();
  ApiKey& key = tenant.keys.emplace_back();
  key.name = "k\"\\";
  key.sha256.fill(0xab);
  const std::string digest = "abababab";
  EXPECT_EQ(print_config(config, Secrets::masked).find(digest), std::string::npos);
  const std::string full = print_config(config, Secrets::full);
  EXPECT_NE(full.find(digest), std::string::npos);
  const auto again = parse_config(full, "f");
  ASSERT_TRUE(again) << again.error().detail;
  EXPECT_EQ(*again, config);
}

TEST(LoadConfig, FindsTheBuiltInModel) {
  for (const ModelKind kind : {ModelKind::llama, ModelKind::canned}) {
    Model built_in;
    built_in.kind = kind;
    std::ifstream file(tokenizer_path(built_in), std::ios::binary);
    EXPECT_TRUE(file.good()) << tokenizer_path(built_in);
  }
  EXPECT_EQ(Model{}.name, "brook");
  EXPECT_TRUE(model_path(Model{}).ends_with("/brook")) << model_path(Model{});
  Model named;
  named.path = "/models/m";
  EXPECT_EQ(tokenizer_path(named), "/models/m/tokenizer.model");
  const std::filesystem::path folder =
      testing::TempDir() + "model_folder_" + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  std::ofstream(folder / "tokenizer.json") << "{}";
  named.path = folder.string();
  EXPECT_EQ(tokenizer_path(named), (folder / "tokenizer.json").string());
  std::ofstream(folder / "tokenizer.model") << "x";
  EXPECT_EQ(tokenizer_path(named), (folder / "tokenizer.model").string());
  std::filesystem::remove_all(folder);
  const std::string file = testing::TempDir() + "model_file_" + std::to_string(::getpid());
  std::ofstream(file) << "GGUF";
  named.path = file;
  EXPECT_EQ(tokenizer_path(named), file);  // it holds its own vocabulary
  EXPECT_TRUE(parse_config("models:\n  - path: " + file + "\n", "f"));
  std::filesystem::remove(file);
  named.tokenizer = "/t.model";
  EXPECT_EQ(tokenizer_path(named), "/t.model");
}

TEST(LoadConfig, KnowsLoopbackAddresses) {
  for (const char* address : {"127.0.0.1", "127.9.9.9", "::1"}) EXPECT_TRUE(is_loopback(address));
  for (const char* address : {"0.0.0.0", "10.0.0.1", "::", "localhost", "", "127.0.0.1 "})
    EXPECT_FALSE(is_loopback(address)) << address;
}

}  // namespace
}  // namespace sluice::cfg
