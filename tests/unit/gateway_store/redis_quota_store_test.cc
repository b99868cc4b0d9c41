// RedisQuotaStore: the script on a real redis-server against its naive model, and the connection
// against a server that answers with nonsense. Where no redis-server is installed the former skip.
#include "gateway/store/redis_quota_store.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "gateway/store/gateway_id.h"
#include "gateway/store/quota_script.h"
#include "shared/random.h"
#include "shared/unique_fd.h"
#include "tests/support/naive_quota_store.h"
#include "tests/support/seed.h"

namespace sluice::gw {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/sluice-redis-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

// A server of its own on a Unix socket, without a file.
class RedisServer {
 public:
  static constexpr const char* kProgram = "/usr/bin/redis-server";
  RedisServer() : socket(folder_.path + "/socket") {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, STDERR_FILENO);
      ::dup2(null, STDOUT_FILENO);
      ::execl(kProgram, kProgram, "--port", "0", "--unixsocket", socket.c_str(), "--save", "",
              "--appendonly", "no", "--dir", folder_.path.c_str(), nullptr);
      ::_exit(127);
    }
    const auto end = SteadyClock::now() + std::chrono::seconds(20);
    while (::access(socket.c_str(), F_OK) != 0 && SteadyClock::now() < end)
      std::this_thread::sleep_for(milliseconds(2));
  }
  ~RedisServer() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  Folder folder_;
  pid_t pid_ = -1;

 public:
  const std::string socket;
};

RedisOptions options_for(const std::string& address) {
  RedisOptions options;
  options.address = address;
  options.command_timeout = milliseconds(2000);
  return options;
}

std::string joined(const std::vector<LeaseCharge>& charges, bool is_minute) {
  if (!is_minute) return std::to_string(charges.empty() ? 0 : charges.front().amount);
  std::string text;
  for (const LeaseCharge& charge : charges)
    text += std::to_string(charge.age_ms) + ":" + std::to_string(charge.amount) + " ";
  return text;
}

std::string text_of(const test::NaiveQuotaStore::Answer& answer) {
  return std::to_string(answer.life) + " " + std::to_string(answer.settling) + " " +
         std::to_string(answer.granted) + " " + std::to_string(answer.others) + " " +
         std::to_string(answer.retry) + " " + (answer.is_short ? "1" : "0");
}

// The script's own clock: TIME is replaced, so that both are asked about the same moment.
std::string script_at(std::int64_t now_ms) {
  std::string script(kQuotaScript);
  const std::string call = "redis.call('TIME')";
  const std::size_t at = script.find(call);
  EXPECT_NE(at, std::string::npos);
  return script.replace(
      at, call.size(),
      "{'" + std::to_string(now_ms / 1000) + "', '" + std::to_string(now_ms % 1000 * 1000) + "'}");
}

TEST(QuotaScript, AnswersAsItsNaiveModel) {
  ASSERT_EQ(::access(RedisServer::kProgram, X_OK), 0) << "redis-server is not installed";
  RedisServer server;
  auto redis = RedisConnection::open(options_for(server.socket));
  ASSERT_TRUE(redis) << redis.error().detail;
  test::NaiveQuotaStore naive;
  const std::uint64_t seed = test::test_seed(1);
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::uint64_t rolls = 0;
  const auto dice = [&](std::uint64_t bound) { return mix64(seed ^ mix64(++rolls)) % bound; };
  std::int64_t now = 1'700'000'000'000;
  std::uint64_t num_granted = 0, num_refused = 0, num_stale = 0;
  constexpr std::int64_t kLeaseMs = 3000;
  std::string run = "runa";
  for (int i = 0; i < 3000; ++i) {
    now += static_cast<std::int64_t>(dice(dice(30) == 0 ? 70'000 : 700));
    if (dice(300) == 0) run += "b";
    if (dice(300) == 0) now -= 500;
    LeaseAsk ask;
    constexpr LimitKind kKinds[] = {LimitKind::tokens_per_minute, LimitKind::tokens_per_day,
                                    LimitKind::concurrent_requests};
    ask.place.kind = kKinds[dice(3)];
    const bool is_minute = ask.place.kind == LimitKind::tokens_per_minute;
    const bool is_period = ask.place.kind == LimitKind::tokens_per_day;
    ask.limit = dice(9) == 0 ? kSharedAmountMax : dice(2000);
    ask.period = static_cast<std::int32_t>(19'700 + dice(2));
    for (std::uint64_t n = dice(is_minute ? 5 : 2); n > 0; --n)
      ask.charges.push_back({static_cast<std::uint32_t>(dice(60'000)), 1 + dice(300)});
    ask.kept = dice(3) == 0 ? dice(200) : 0;
    ask.least = dice(2) * dice(300);
    ask.most = ask.least + (ask.least > 0 ? dice(100) : 0);
    ask.want = ask.most + dice(200);
    const auto mode = dice(2) == 0 ? LeaseMode::leased : LeaseMode::synchronous;
    const std::string key(limit_kind_name(ask.place.kind));
    const std::string gateway = "g" + std::to_string(dice(4));
    const auto session = static_cast<std::int64_t>(dice(20) == 0 ? 1 : 2 + i / 1000);
    const auto expected = naive.apply(key, gateway, ask, mode, kLeaseMs, run, session, now);
    const RedisCommand command{"EVAL",
                               script_at(now),
                               "2",
                               key,
                               "life",
                               gateway,
                               is_minute   ? "m"
                               : is_period ? "p"
                                           : "c",
                               std::to_string(is_period ? ask.period : 0),
                               std::to_string(ask.limit),
                               std::to_string(ask.kept),
                               std::to_string(ask.least),
                               std::to_string(ask.most),
                               std::to_string(ask.want),
                               mode == LeaseMode::leased ? "l" : "s",
                               std::to_string(kLeaseMs),
                               "100000000",
                               run,
                               joined(ask.charges, is_minute),
                               std::to_string(session)};
    const auto reply = redis->run_one(command);
    ASSERT_TRUE(reply) << reply.error().detail;
    ASSERT_EQ(reply->is_error, expected.is_stale) << reply->text << " at " << i;
    num_stale += expected.is_stale ? 1 : 0;
    if (expected.is_stale) continue;
    ASSERT_EQ(reply->text, text_of(expected)) << key << " at " << i;
    num_granted += expected.granted > 0 ? 1 : 0;
    num_refused += expected.granted < ask.most ? 1 : 0;
  }
  EXPECT_GT(num_granted, 300u);
  EXPECT_GT(num_refused, 100u);
  EXPECT_GT(num_stale, 10u);
}

// The thread over a server that forgets its scripts, stops answering, and comes back.
TEST(RedisQuotaStore, LeasesAndComesBackByItself) {
  ASSERT_EQ(::access(RedisServer::kProgram, X_OK), 0) << "redis-server is not installed";
  ::signal(SIGPIPE, SIG_IGN);  // as the gateway does
  RedisServer server;
  QuotaStoreOptions options;
  options.redis = options_for(server.socket);
  options.gateway = "me";
  options.leases.lease_time = milliseconds(500);
  options.retry_max = milliseconds(100);
  std::mutex mutex;
  std::condition_variable wake;
  options.has_news = [&] {
    const std::lock_guard lock(mutex);
    wake.notify_one();
  };
  RedisQuotaStore store(std::move(options));
  std::uint64_t connection = 0;
  const auto wait = [&](auto is_it) {
    RedisQuotaStore::News news;
    std::unique_lock lock(mutex);
    const auto end = SteadyClock::now() + std::chrono::seconds(20);
    while (SteadyClock::now() < end) {
      if (store.has_news()) {
        news = store.take_news();
        connection = news.connection;
        if (is_it(news)) return news;
      }
      wake.wait_for(lock, milliseconds(20));
    }
    ADD_FAILURE() << "timed out";
    return news;
  };
  const auto is_connected = [](const auto& news) { return news.is_connected; };
  const auto has_answers = [](const auto& news) { return news.answers.has_value(); };
  const auto exchange = [&] {
    LeaseAsk ask;
    ask.place.kind = LimitKind::tokens_per_minute;
    ask.limit = 1000;
    ask.least = ask.most = ask.want = 10;
    store.send({{"a", ask}, {"b", ask}}, connection);
    return wait(has_answers).answers.value_or(LeaseAnswers{});
  };
  wait(is_connected);
  LeaseAnswers first = exchange();
  ASSERT_EQ(first.answers.size(), 2u);
  while (first.settling > Duration{0}) {
    EXPECT_EQ(first.answers[0].granted, 0u);
    std::this_thread::sleep_for(first.settling);
    first = exchange();
  }
  EXPECT_EQ(first.answers[0].granted, 10u);
  EXPECT_EQ(first.answers[1].granted, 10u);
  auto other = RedisConnection::open(options_for(server.socket));
  ASSERT_TRUE(other);
  ASSERT_TRUE(other->run_one({"SCRIPT", "FLUSH"}));
  EXPECT_EQ(exchange().answers.at(1).granted, 10u);  // with the script itself
  const auto life = exchange().store_life;
  EXPECT_EQ(life, first.store_life);
  ASSERT_TRUE(other->run_one({"FLUSHALL"}));
  EXPECT_GT(exchange().store_life, life);
  ASSERT_TRUE(other->run_one({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}));
  wait([](const auto& news) { return !news.is_connected || news.connection > 1; });
  if (connection < 3) wait(is_connected);
  EXPECT_GT(exchange().answers.size(), 0u);
  EXPECT_GE(store.counters().connects.load(), 2u);
  // An entry of another program under a limit's key: refused, not believed.
  ASSERT_TRUE(other->run_one({"HSET", "sluice:limit:a", "stranger", "nonsense"}));
  LeaseAsk ask;
  ask.limit = 1000;
  store.send({{"a", ask}}, connection);
  const auto news = wait([](const auto& now) { return !now.is_connected; });
  EXPECT_NE(news.reason.find("QUOTA"), std::string::npos) << news.reason;
}

// Says one thing to whoever connects, at most `times` times a millisecond apart, then is silent.
class CannedServer {
 public:
  explicit CannedServer(std::string says, int times = 1) : says_(std::move(says)) {
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    socklen_t size = sizeof at;
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&at), &size);
    port = ntohs(at.sin_port);
    thread_ = std::thread([this, times] {
      const UniqueFd client(::accept(listener_.get(), nullptr, nullptr));
      for (int i = 0; i < times && client; ++i) {
        if (::send(client.get(), says_.data(), says_.size(), MSG_NOSIGNAL) <= 0) return;
        if (times > 1) std::this_thread::sleep_for(milliseconds(1));
      }
      char byte;
      while (client && ::read(client.get(), &byte, 1) > 0) {
      }
    });
  }
  ~CannedServer() { thread_.join(); }
  std::uint16_t port = 0;

 private:
  std::string says_;
  UniqueFd listener_;
  std::thread thread_;
};

TEST(RedisConnection, EndsOnWhatNoCommandAnswers) {
  struct Case {
    std::string says;
    int times;
    const char* reason;
  };
  const Case cases[] = {
      {"*1000000000\r\n", 1, "reply"},                   // an array of that size
      {"*2\r\n+a\r\n+b\r\n", 1, "reply"},                // any array
      {"$1000000000000\r\n", 1, "timed out"},            // a length that never comes
      {"$100000000\r\n", 1, "timed out"},                // likewise
      {"$-7\r\n", 1, "reply"},                           // no length
      {"hello\r\n", 1, "reply"},                         // no reply
      {"+", 1, "timed out"},                             // half of one
      {std::string(300'000, 'x'), 1, "reply"},           // no reply, long
      {"+" + std::string(400'000, 'x'), 1, "too long"},  // a line without an end
      {"+x", 5000, "timed out"},                         // one that trickles
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.says.substr(0, 20));
    CannedServer server(one.says, one.times);
    RedisOptions options;
    options.port = server.port;
    options.command_timeout = milliseconds(100);
    const auto begin = SteadyClock::now();
    {
      auto redis = RedisConnection::open(options);
      ASSERT_TRUE(redis) << redis.error().detail;
      const auto reply = redis->run_one({"PING"});
      ASSERT_FALSE(reply) << reply->text.size();
      EXPECT_NE(reply.error().detail.find(one.reason), std::string::npos) << reply.error().detail;
    }
    EXPECT_LT(SteadyClock::now() - begin, std::chrono::seconds(5));
  }
}

TEST(RedisConnection, TellsNothingOfAPassword) {
  CannedServer server("-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n");
  RedisOptions options;
  options.port = server.port;
  options.password = "hunter2";
  const auto redis = RedisConnection::open(options);
  ASSERT_FALSE(redis);
  EXPECT_EQ(redis.error().detail, "redis: AUTH: ERR");
}

TEST(GatewayId, IsMadeOnceAndKept) {
  const Folder folder;
  const auto made = load_gateway_id(folder.path);
  ASSERT_TRUE(made) << made.error().detail;
  EXPECT_EQ(made->size(), 32u);
  EXPECT_EQ(load_gateway_id(folder.path).value(), *made);
  EXPECT_NE(load_gateway_id(Folder().path).value(), *made);
  ASSERT_EQ(::truncate((folder.path + "/gateway_id").c_str(), 5), 0);
  EXPECT_EQ(load_gateway_id(folder.path).error().code, Errc::bad_file);
}

}  // namespace
}  // namespace sluice::gw
