// LoadClient against a scripted server in the same process: every way in which a request can end is
// counted under its name, latency starts at the due time, CPU of a process is read.
#include "gateway/bench/load_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "gateway/bench/report.h"
#include "gateway/bench/request_mix.h"
#include "shared/unique_fd.h"

namespace sluice::bench {
namespace {

using namespace std::chrono_literals;

// Answers each request on each connection by a script; a thread per connection.
class ScriptedServer {
 public:
  struct Answer {
    std::string bytes;
    bool closes = false;
    std::chrono::milliseconds delay{0};  // service time, not synchronisation
  };

  explicit ScriptedServer(std::vector<Answer> script) : script_(std::move(script)) {
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    socklen_t bytes = sizeof address;
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &bytes);
    port_ = ntohs(address.sin_port);
    ::listen(listener_.get(), 128);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~ScriptedServer() {
    stop_.store(true);
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    for (std::thread& thread : threads_) thread.join();
  }
  std::string port() const { return std::to_string(port_); }
  unsigned num_requests() const { return num_requests_.load(); }

 private:
  void accept_all() {
    for (;;) {
      UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) return;
      threads_.emplace_back([this, connection = std::move(fd)] { serve(connection.get()); });
    }
  }
  void serve(int fd) {
    std::string read;
    while (!stop_.load()) {
      pollfd ready{fd, POLLIN, 0};
      if (::poll(&ready, 1, 20) == 0) continue;
      char bytes[4096];
      const ssize_t got = ::recv(fd, bytes, sizeof bytes, 0);
      if (got <= 0) return;
      read.append(bytes, static_cast<std::size_t>(got));
      const std::size_t head = read.find("\r\n\r\n");
      if (head == std::string::npos) continue;
      const std::size_t length = std::stoul(read.substr(read.find("Content-Length: ") + 16));
      if (read.size() < head + 4 + length) continue;
      read.erase(0, head + 4 + length);
      const Answer& answer = script_[num_requests_.fetch_add(1) % script_.size()];
      std::this_thread::sleep_for(answer.delay);
      ::send(fd, answer.bytes.data(), answer.bytes.size(), MSG_NOSIGNAL);
      if (answer.closes) return;
    }
  }

  std::vector<Answer> script_;
  UniqueFd listener_;
  std::uint16_t port_ = 0;
  std::thread acceptor_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stop_{false};
  std::atomic<unsigned> num_requests_{0};
};

std::string whole(const std::string& body, const std::string& status = "200 OK") {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}
const std::string kOk = whole(R"({"usage":{"prompt_tokens":4,"completion_tokens":2}})");
const std::string kStreamHead = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
const std::string kText = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

LoadPlan plan_for(const ScriptedServer& server, bool streamed) {
  LoadPlan plan;
  EXPECT_TRUE(resolve("127.0.0.1", server.port(), plan));
  RequestOptions options;
  options.host = "127.0.0.1:" + server.port();
  options.stream = streamed;
  plan.requests = *make_requests(options);
  plan.streamed = streamed;
  plan.requests_max = 20;
  plan.drain = 10s;
  plan.timeout = 10s;
  return plan;
}

LoadResult run(const LoadPlan& plan) {
  CpuMeter none({});
  Result<LoadResult> result = run_load(plan, none, {});
  EXPECT_TRUE(result);
  return std::move(*result);
}

TEST(LoadClient, ClosedLoopCountsEveryRequestOnce) {
  const ScriptedServer server({{kOk}});
  LoadPlan plan = plan_for(server, false);
  plan.connections = 3;
  plan.requests_max = 200;
  const LoadResult result = run(plan);
  EXPECT_EQ(result.requests_ok, 200u);
  EXPECT_EQ(result.requests_ended, 200u);
  EXPECT_EQ(server.num_requests(), 200u);
  EXPECT_EQ(result.completion_tokens, 400u);
  EXPECT_EQ(result.prompt_tokens, 800u);
  EXPECT_EQ(result.e2e.count(), 200u);
  EXPECT_EQ(result.num_failures(), 0u);
  EXPECT_GT(result.wall, Duration(0));
}

TEST(LoadClient, NamesEveryKindOfFailure) {
  const ScriptedServer server({{kOk},
                               {whole("{}", "503 Busy")},
                               {"", true},
                               {kOk.substr(0, 30), true},
                               {"nonsense\r\n\r\n", true}});
  const LoadResult result = run(plan_for(server, false));
  const std::map<std::string, std::uint64_t> expected{
      {"http_503", 4}, {"reset", 4}, {"truncated", 4}, {"malformed", 4}};
  EXPECT_EQ(result.failures, expected);
  EXPECT_EQ(result.requests_ok, 4u);
  EXPECT_EQ(result.requests_started, 20u);
}

TEST(LoadClient, StreamsCountTextFirstTokenAndGaps) {
  const std::string good = kStreamHead + kText + kText + kText + "data: [DONE]\n\n";
  const std::string bad = kStreamHead + kText + "data: {\"error\":{}}\n\n";
  const ScriptedServer server(
      {{good, true}, {bad, true}, {kStreamHead + kText, true}, {good, true}});
  const LoadResult result = run(plan_for(server, true));
  const std::map<std::string, std::uint64_t> expected{{"stream_error", 5}, {"truncated", 5}};
  EXPECT_EQ(result.failures, expected);
  EXPECT_EQ(result.requests_ok, 10u);
  EXPECT_EQ(result.text_events, 40u);
  EXPECT_EQ(result.completion_tokens, 30u);  // no usage: text events
  EXPECT_EQ(result.ttft.count(), 20u);
  EXPECT_EQ(result.itl.count(), 20u);
}

TEST(LoadClient, AbortsAfterTheAskedTextEvents) {
  const ScriptedServer server({{kStreamHead + kText + kText}});
  LoadPlan plan = plan_for(server, true);
  plan.abort_after = 2;
  const LoadResult result = run(plan);
  EXPECT_EQ(result.requests_aborted, 20u);
  EXPECT_EQ(result.text_events, 40u);
  EXPECT_EQ(result.num_failures(), 0u);
}

TEST(LoadClient, OpenLoopCountsLatencyFromTheDueTime) {
  // One connection and 5 ms of service for arrivals every millisecond: the wait grows to 5 ms times
  // the queue. A client that only times its own sends would report 5 ms for each.
  const ScriptedServer server({{kOk, false, 5ms}});
  LoadPlan plan = plan_for(server, false);
  plan.rate = 1000;
  plan.connections = 1;
  plan.requests_max = 40;
  const LoadResult result = run(plan);
  EXPECT_EQ(result.requests_ok, 40u);
  EXPECT_GT(result.e2e.max(), 100'000'000u);
  EXPECT_GE(result.e2e.min(), 5'000'000u);
}

TEST(LoadClient, AScheduleSendsEachRequestOnceWhenItIsDue) {
  // One connection: the second is due while the first is served, and counts from its due time.
  const ScriptedServer server({{kOk, false, 10ms}});
  LoadPlan plan = plan_for(server, false);
  plan.schedule = {0ms, 1ms, 40ms};
  plan.requests_max = 3;
  const LoadResult result = run(plan);
  EXPECT_EQ(result.requests_ok, 3u);
  EXPECT_EQ(server.num_requests(), 3u);
  EXPECT_GE(result.e2e.max(), 19'000'000u * 99 / 100);  // the histogram's buckets
  EXPECT_GE(result.wall, Duration(50ms));
}

TEST(LoadClient, TimesOutAndReportsWhatDoesNotEnd) {
  const ScriptedServer server({{""}});
  LoadPlan plan = plan_for(server, false);
  plan.requests_max = 2;
  plan.timeout = 30ms;
  EXPECT_EQ(run(plan).failures, (std::map<std::string, std::uint64_t>{{"timeout", 2}}));
  plan.requests_max = 0;
  plan.duration = 30ms;
  plan.timeout = 10s;
  plan.drain = 10ms;
  EXPECT_EQ(run(plan).requests_unfinished, 1u);
}

TEST(LoadClient, AClosedPortIsAConnectFailure) {
  LoadPlan plan;
  {
    const ScriptedServer server({{kOk}});
    plan = plan_for(server, false);
  }
  plan.requests_max = 2;
  EXPECT_EQ(run(plan).failures, (std::map<std::string, std::uint64_t>{{"connect", 2}}));
}

TEST(CpuMeter, ReadsAProcessAndMissesADeadOne) {
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(dead, nullptr, 0), dead);
  CpuMeter meter({::getpid(), dead});
  meter.start();
  const Duration before = *process_cpu_time(::getpid());
  while (*process_cpu_time(::getpid()) - before < 20ms) {
  }
  meter.stop();
  ASSERT_EQ(meter.readings().size(), 1u);
  EXPECT_EQ(meter.num_lost(), 1u);
  EXPECT_GE(meter.total(), Duration(20ms));
  EXPECT_EQ(process_tree(::getpid()).front(), ::getpid());
}

TEST(Report, IsOneJsonObjectWithTheCounts) {
  const ScriptedServer server({{kOk}, {whole("{}", "500 \"x\"")}});
  const LoadPlan plan = plan_for(server, false);
  CpuMeter own({::getpid()});
  const Result<LoadResult> result = run_load(plan, own, {});
  ASSERT_TRUE(result);
  const std::string json = report_json({"http://x/\"q\"", "completions"}, plan, *result, own);
  for (const char* wanted : {R"("ok": 10)", R"("failed": 10)", R"({"http_500": 10})", R"("p999": )",
                             R"(/\"q\"")", R"("loop": "closed")"})
    EXPECT_NE(json.find(wanted), std::string::npos) << wanted << json;
  EXPECT_NE(report_table(plan, *result, own).find("10 ok, 10 failed"), std::string::npos);
}

}  // namespace
}  // namespace sluice::bench
