// JSON and table of a load run; see report.h.
#include "gateway/bench/report.h"

#include <array>
#include <cstdarg>
#include <cstdio>

namespace sluice::bench {
namespace {

struct Quantile {
  const char* name;
  double value;
};
constexpr std::array<Quantile, 5> kQuantiles{
    {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}}};

[[gnu::format(printf, 2, 3)]] void append(std::string& out, const char* format, ...) {
  std::array<char, 512> room{};
  va_list arguments;
  va_start(arguments, format);
  const int size = std::vsnprintf(room.data(), room.size(), format, arguments);
  va_end(arguments);
  if (size > 0) out.append(room.data(), std::min(static_cast<std::size_t>(size), room.size() - 1));
}

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}
double per(std::uint64_t count, Duration duration) {
  return duration > Duration(0) ? static_cast<double>(count) / seconds(duration) : 0;
}
double us(std::uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e3;
}
unsigned long long number(std::uint64_t value) {
  return value;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + '"';
}

void append_latency(std::string& out, const char* name, const LatencyHistogram& h) {
  append(out, "    \"%s\": {\"count\": %llu, \"mean\": %.3f, \"min\": %.3f", name,
         number(h.count()), h.mean() / 1e3, us(h.min()));
  for (const Quantile& q : kQuantiles)
    append(out, ", \"%s\": %.3f", q.name, us(h.quantile(q.value)));
  append(out, ", \"max\": %.3f}", us(h.max()));
}

}  // namespace

std::string report_json(const ReportLabels& labels, const LoadPlan& plan, const LoadResult& result,
                        const CpuMeter& server_cpu) {
  std::string out = "{\n  \"url\": " + quoted(labels.url) + ",\n";
  append(out, "  \"endpoint\": \"%s\",\n  \"stream\": %s,\n", labels.endpoint.c_str(),
         plan.streamed ? "true" : "false");
  append(out, "  \"loop\": \"%s\",\n  \"connections\": %u,\n  \"rate\": %.3f,\n",
         !plan.schedule.empty() ? "trace"
         : plan.rate > 0        ? "open"
                                : "closed",
         plan.connections, plan.rate);
  append(out, "  \"wall_seconds\": %.6f,\n  \"client_cpu_seconds\": %.6f,\n", seconds(result.wall),
         seconds(result.client_cpu));
  append(out,
         "  \"server_cpu_seconds\": %.6f,\n  \"server_processes_lost\": %u,\n  \"server_cpu\": {",
         seconds(server_cpu.total()), server_cpu.num_lost());
  const char* comma = "";
  for (const CpuMeter::Reading& reading : server_cpu.readings()) {
    append(out, "%s\"%d\": %.6f", comma, static_cast<int>(reading.pid), seconds(reading.used));
    comma = ", ";
  }
  append(out, "},\n  \"window\": {\"requests\": %llu, \"text_events\": %llu, ",
         number(result.requests_ended), number(result.text_events));
  append(out, "\"completion_tokens\": %llu, \"prompt_tokens\": %llu},\n",
         number(result.completion_tokens), number(result.prompt_tokens));
  append(out, "  \"requests_per_second\": %.3f,\n  \"requests_per_server_cpu_second\": %.3f,\n",
         per(result.requests_ended, result.wall), per(result.requests_ended, server_cpu.total()));
  append(out, "  \"tokens_per_second\": %.3f,\n  \"text_events_per_second\": %.3f,\n",
         per(result.completion_tokens, result.wall), per(result.text_events, result.wall));
  append(out, "  \"text_events_per_server_cpu_second\": %.3f,\n",
         per(result.text_events, server_cpu.total()));
  append(out, "  \"requests\": {\"started\": %llu, \"ok\": %llu, \"aborted\": %llu, ",
         number(result.requests_started), number(result.requests_ok),
         number(result.requests_aborted));
  append(out, "\"unfinished\": %llu, \"failed\": %llu},\n  \"failures\": {",
         number(result.requests_unfinished), number(result.num_failures()));
  comma = "";
  for (const auto& [kind, count] : result.failures) {
    append(out, "%s\"%s\": %llu", comma, kind.c_str(), number(count));
    comma = ", ";
  }
  out += "},\n  \"latency_us\": {\n";
  append_latency(out, "ttft", result.ttft);
  out += ",\n";
  append_latency(out, "itl", result.itl);
  out += ",\n";
  append_latency(out, "e2e", result.e2e);
  return out + "\n  }\n}\n";
}

std::string report_table(const LoadPlan& plan, const LoadResult& result,
                         const CpuMeter& server_cpu) {
  std::string out;
  append(out, "%-12s %llu ok, %llu failed, %llu aborted, %llu unfinished in %.2f s\n", "requests",
         number(result.requests_ok), number(result.num_failures()), number(result.requests_aborted),
         number(result.requests_unfinished), seconds(result.wall));
  for (const auto& [kind, count] : result.failures)
    append(out, "  failed     %-16s %llu\n", kind.c_str(), number(count));
  append(out, "%-12s %.1f requests/s, %.1f tokens/s", "rate",
         per(result.requests_ended, result.wall), per(result.completion_tokens, result.wall));
  if (plan.streamed) append(out, ", %.1f text events/s", per(result.text_events, result.wall));
  append(out, "\n%-12s client %.3f s", "CPU", seconds(result.client_cpu));
  if (!server_cpu.readings().empty()) {
    append(out, ", server %.3f s: %.1f requests", seconds(server_cpu.total()),
           per(result.requests_ended, server_cpu.total()));
    if (plan.streamed)
      append(out, ", %.1f text events", per(result.text_events, server_cpu.total()));
    out += " per CPU second";
  }
  append(out, "\n\n%-12s %10s %10s %10s %10s %10s %10s\n", "us", "count", "p50", "p90", "p99",
         "p99.9", "max");
  const auto row = [&](const char* name, const LatencyHistogram& h) {
    if (h.count() == 0) return;
    append(out, "%-12s %10llu %10.1f %10.1f %10.1f %10.1f %10.1f\n", name, number(h.count()),
           us(h.quantile(0.5)), us(h.quantile(0.9)), us(h.quantile(0.99)), us(h.quantile(0.999)),
           us(h.max()));
  };
  row("TTFT", result.ttft);
  row("ITL", result.itl);
  row("end to end", result.e2e);
  return out;
}

}  // namespace sluice::bench
