// Options, progress bar and output of `sluice bench`; see bench.h.
#include "gateway/bench/bench.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <string>

#include "gateway/bench/dataset.h"
#include "gateway/bench/line_reader.h"
#include "gateway/bench/load_client.h"
#include "gateway/bench/report.h"
#include "gateway/bench/request_mix.h"
#include "gateway/bench/trace.h"

namespace sluice::bench {
namespace {

struct Options {
  std::string url = "http://127.0.0.1:8080/v1";
  std::string endpoint = "completions";
  std::string prompt_file, json_file;
  std::string trace_file, dataset_file;
  double trace_speed = 1;
  std::uint32_t trace_block_tokens = 512;
  RequestOptions request;
  std::uint32_t concurrency = 0;
  double rate = 0;
  std::uint64_t requests = 0;
  double warmup = 1, duration = 0, drain = 10, timeout = 120;
  std::int64_t abort_after = -1;
  std::vector<pid_t> server_pids, server_trees;
  bool is_quiet = false;
};

void declare_load(CLI::App& app, Options& o) {
  app.add_option("--url", o.url, "server and base path, http:// only")->capture_default_str();
  app.add_option("-c,--concurrency", o.concurrency,
                 "closed loop: clients (default 1); open loop: most connections (default 1000)")
      ->check(CLI::Range(1, 100'000));
  app.add_option("-r,--rate", o.rate, "open loop: arrivals per second, Poisson; 0: closed loop")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("-d,--duration", o.duration, "seconds that are measured (default 10)")
      ->check(CLI::Range(0.0, 86'400.0));
  app.add_option("-n,--requests", o.requests, "requests that are measured, instead of --duration");
  app.add_option("--warmup", o.warmup, "seconds before")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0));
  app.add_option("--drain", o.drain, "seconds for requests that still run after the window")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0));
  app.add_option("--timeout", o.timeout, "seconds for one request")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 86'400.0));
  app.add_option("--abort-after", o.abort_after,
                 "close the connection after so many text events; 0: as soon as it is sent")
      ->check(CLI::NonNegativeNumber);
}

void declare_request(CLI::App& app, Options& o) {
  RequestOptions& r = o.request;
  app.add_option("--endpoint", o.endpoint, "completions or chat")
      ->capture_default_str()
      ->check(CLI::IsMember({"completions", "chat"}));
  app.add_flag("--stream", r.stream, "ask for server-sent events");
  app.add_option("--model", r.model, "model name")->capture_default_str();
  CLI::Option* text = app.add_option("--prompt", r.prompt, "one fixed text for all requests");
  app.add_option("--prompt-file", o.prompt_file, "the fixed text, from a file")
      ->excludes(text)
      ->check(CLI::ExistingFile);
  app.add_option("--prompt-tokens", r.prompt_words, "else: about so many tokens of seeded words")
      ->capture_default_str()
      ->check(CLI::Range(1, 10'000'000));
  app.add_option("--prefix-tokens", r.prefix_words, "equal words before every prompt")
      ->capture_default_str()
      ->check(CLI::Range(0, 10'000'000));
  app.add_option("--prompts", r.num_prompts, "different prompts, used in turn")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--max-tokens", r.max_tokens, "max_tokens of each request")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'048'576));
  app.add_option("--extra", r.extra_json, "a JSON object whose members join every request");
  app.add_option("--api-key", r.api_key, "sent as a bearer token");
  app.add_option("--seed", r.seed, "of prompts and arrivals")->capture_default_str();
}

// After the others: what a replay decides may not be given beside it.
void declare_replay(CLI::App& app, Options& o) {
  CLI::Option* trace = app.add_option(
      "--trace", o.trace_file,
      "open loop: replay the arrivals and lengths of a trace (-n: its first N requests); its\n"
      "prompts are seeded words, its answers end early unless --extra '{\"ignore_eos\":true}'");
  app.add_option("--trace-speed", o.trace_speed, "so many times as fast")
      ->capture_default_str()
      ->check(CLI::Range(1e-6, 1e6))
      ->needs(trace);
  app.add_option("--trace-block-tokens", o.trace_block_tokens, "tokens that one hash id names")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'048'576))
      ->needs(trace);
  CLI::Option* dataset =
      app.add_option("--dataset", o.dataset_file, "the prompts of a file, used in turn");
  for (CLI::Option* replay : {trace, dataset}) {
    replay->check(CLI::ExistingFile);
    for (const char* name :
         {"--prompt", "--prompt-file", "--prompt-tokens", "--prefix-tokens", "--prompts"})
      replay->excludes(app.get_option(name));
  }
  for (const char* name : {"--rate", "--warmup", "--max-tokens", "--dataset"})
    trace->excludes(app.get_option(name));
  app.footer(
      "Traces: CSV with the columns TIMESTAMP (2023-11-16 18:15:46.68, or seconds), "
      "ContextTokens,\n"
      "GeneratedTokens; or JSON lines\n"
      "  {\"timestamp\": ms, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, "
      "1]}\n"
      "where equal hash_ids (optional) give equal parts of prompts.\n"
      "Datasets: JSON lines {\"prompt\": text or [ids]}, {\"messages\": [...]} or {\"turns\": "
      "[text,\n"
      "...]} (the first counts), each with \"max_tokens\" if it has its own.");
}

void declare_output(CLI::App& app, Options& o) {
  app.add_option("--server-pid", o.server_pids, "processes whose CPU time is the server's")
      ->delimiter(',');
  app.add_option("--server-tree", o.server_trees, "processes counted with all their descendants")
      ->delimiter(',');
  app.add_option("--json", o.json_file,
                 "write the report as JSON to this file; -: standard output");
  app.add_flag("-q,--quiet", o.is_quiet, "no progress bar and no table");
}

Duration from_seconds(double seconds) {
  return Duration(static_cast<Duration::rep>(seconds * 1e9));
}

// http://HOST[:PORT][/BASE]
Result<void> apply_url(Options& o, LoadPlan& plan) {
  constexpr std::string_view kScheme = "http://";
  if (!o.url.starts_with(kScheme))
    return make_error(Errc::invalid_value, "url: only http://HOST[:PORT][/BASE]", "url");
  const std::string rest = o.url.substr(kScheme.size());
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  o.request.host = rest.substr(0, slash);
  o.request.base_path = rest.substr(slash);
  while (o.request.base_path.ends_with('/')) o.request.base_path.pop_back();
  std::string host = o.request.host, port = "80";
  // A colon inside [..] belongs to an IPv6 address.
  const std::size_t colon = host.rfind(':');
  if (colon != std::string::npos && host.find(']', colon) == std::string::npos) {
    port = host.substr(colon + 1);
    host.resize(colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return resolve(host, port, plan);
}

Result<std::string> read_replay_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff bytes = file ? std::streamoff{file.tellg()} : -1;
  if (bytes < 0) return make_error(Errc::io_error, path + ": cannot be read");
  if (static_cast<std::uint64_t>(bytes) > kReplayFileBytesMax)
    return make_error(Errc::invalid_value, path + ": longer than 512 MiB");
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.seekg(0);
  if (!file.read(text.data(), bytes))
    return make_error(Errc::io_error, path + ": cannot be read to its end");
  return text;
}

Error with_path(const std::string& path, Error error) {
  error.detail = path + ": " + error.detail;
  return error;
}

// Requests and schedule of the trace's first `requests_max` requests, or of all.
Result<void> replay_trace(const Options& o, LoadPlan& plan) {
  const Result<std::string> text = read_replay_file(o.trace_file);
  if (!text) return text.error();
  Result<Trace> trace = parse_trace(*text, o.trace_block_tokens);
  if (!trace) return with_path(o.trace_file, trace.error());
  if (o.requests > 0 && o.requests < trace->requests.size()) trace->requests.resize(o.requests);
  Result<std::vector<std::string>> requests = make_requests(o.request, *trace);
  if (!requests) return requests.error();
  plan.requests = std::move(*requests);
  plan.requests_max = trace->requests.size();
  for (const TraceRequest& request : trace->requests)
    plan.schedule.push_back(
        from_seconds(std::chrono::duration<double>(request.at).count() / o.trace_speed));
  return {};
}

Result<std::vector<std::string>> requests_of_dataset(const Options& o) {
  const Result<std::string> text = read_replay_file(o.dataset_file);
  if (!text) return text.error();
  const Result<std::vector<DatasetPrompt>> dataset = parse_dataset(*text);
  if (!dataset) return with_path(o.dataset_file, dataset.error());
  return make_requests(o.request, *dataset);
}

// What is sent and when.
Result<void> fill_requests(Options& o, LoadPlan& plan) {
  plan.requests_max = o.requests;
  if (!o.trace_file.empty()) return replay_trace(o, plan);
  plan.warmup = from_seconds(o.warmup);
  if (!o.prompt_file.empty()) {
    std::ifstream file(o.prompt_file, std::ios::binary);
    o.request.prompt.assign(std::istreambuf_iterator<char>(file), {});
  }
  // A fixed text makes equal requests: one of them is enough.
  if (!o.request.prompt.empty()) o.request.num_prompts = 1;
  Result<std::vector<std::string>> requests =
      o.dataset_file.empty() ? make_requests(o.request) : requests_of_dataset(o);
  if (!requests) return requests.error();
  plan.requests = std::move(*requests);
  return {};
}

Result<LoadPlan> make_plan(Options& o) {
  LoadPlan plan;
  o.request.endpoint = o.endpoint == "chat" ? Endpoint::chat : Endpoint::completions;
  const Result<void> url = apply_url(o, plan);
  if (!url) return url.error();
  const Result<void> filled = fill_requests(o, plan);
  if (!filled) return filled.error();
  plan.streamed = o.request.stream;
  plan.rate = o.rate;
  const bool is_open_loop = o.rate > 0 || !plan.schedule.empty();
  plan.connections = o.concurrency != 0 ? o.concurrency : (is_open_loop ? 1000 : 1);
  if (o.duration <= 0 && plan.requests_max == 0) o.duration = 10;
  plan.duration = from_seconds(o.duration);
  plan.drain = from_seconds(o.drain);
  plan.timeout = from_seconds(o.timeout);
  if (o.abort_after >= 0) plan.abort_after = static_cast<std::uint64_t>(o.abort_after);
  plan.seed = o.request.seed;
  return plan;
}

void draw_progress(const LoadProgress& progress) {
  constexpr int kWidth = 30;
  std::string bar(kWidth, '-');
  const auto filled = static_cast<std::size_t>(progress.fraction * kWidth);
  bar.replace(0, filled, filled, '#');
  std::fprintf(stderr, "\r[%s] %3.0f %%  %llu requests, %llu failed ", bar.c_str(),
               progress.fraction * 100, static_cast<unsigned long long>(progress.requests_ended),
               static_cast<unsigned long long>(progress.failures));
  if (progress.fraction >= 1) std::fputc('\n', stderr);
}

bool write_json(const std::string& path, const std::string& json) {
  if (path == "-") return std::fwrite(json.data(), 1, json.size(), stdout) == json.size();
  std::ofstream file(path, std::ios::binary);
  file << json;
  file.close();
  return !file.fail();
}

int run(Options& o) {
  Result<LoadPlan> plan = make_plan(o);
  if (!plan) {
    std::fprintf(stderr, "sluice bench: %s\n", plan.error().detail.c_str());
    return 2;
  }
  std::vector<pid_t> pids = o.server_pids;
  for (const pid_t root : o.server_trees)
    for (const pid_t pid : process_tree(root)) pids.push_back(pid);
  CpuMeter server_cpu(std::move(pids));

  std::function<void(const LoadProgress&)> progress;
  if (!o.is_quiet && ::isatty(STDERR_FILENO) == 1) progress = draw_progress;
  const Result<LoadResult> result = run_load(*plan, server_cpu, progress);
  if (!result) {
    std::fprintf(stderr, "sluice bench: %s\n", result.error().detail.c_str());
    return 1;
  }
  if (!o.is_quiet) std::fputs(report_table(*plan, *result, server_cpu).c_str(), stderr);
  if (!o.json_file.empty() &&
      !write_json(o.json_file, report_json({o.url, o.endpoint}, *plan, *result, server_cpu))) {
    std::fprintf(stderr, "sluice bench: cannot write %s\n", o.json_file.c_str());
    return 1;
  }
  return result->num_failures() == 0 && result->requests_started > 0 ? 0 : 1;
}

}  // namespace

int run_bench(int argc, char** argv) {
  CLI::App app(
      "Load client for OpenAI-compatible servers: closed loop, or open loop with --rate or "
      "--trace.\n"
      "Latencies are what a client sees; tokens that arrive in one read have no gap between "
      "them.",
      "sluice bench");
  Options options;
  declare_load(app, options);
  declare_request(app, options);
  declare_replay(app, options);
  declare_output(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return run(options);
}

}  // namespace sluice::bench
