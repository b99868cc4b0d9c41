// RedisQuotaStore: the thread that takes leases of shared limits from a Redis server. It connects,
// and connects again with a growing pause; in between it carries one exchange at a time: all asks
// of it are pipelined, each one run of the script in quota_script.h.
//
// Bounds: one exchange of kAsksMax asks waits or is under way; each reply has a length, a form and
// ranges, and all of an exchange one time. Any failure drops the connection: the exchange then has
// no answer, and after the next connect everything is reported anew.
// Thread rule: one thread calls everything but the hook, which runs on the store thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gateway/core/lease_book.h"
#include "gateway/store/redis_connection.h"

namespace sluice::gw {

struct KeyedAsk {
  std::string key;  // of the counter, without the prefix
  LeaseAsk ask;
};

struct QuotaStoreOptions {
  RedisOptions redis;
  std::string key_prefix = "sluice:";
  std::string gateway;  // its id: of its state directory, so that the next process continues it
  LeaseParams leases;
  Duration retry_min{std::chrono::milliseconds{50}};
  // At most a quarter of a lease: all gateways are back before a new server grants anything.
  Duration retry_max{std::chrono::milliseconds{500}};
  std::function<void()> has_news;  // take_news() has something; may be empty
};

struct QuotaStoreCounters {
  std::atomic<std::uint64_t> connects{0}, failures{0}, exchanges{0};
  std::atomic<std::uint64_t> exchange_us{0};  // all of them
};

class RedisQuotaStore {
 public:
  static constexpr std::size_t kAsksMax = 512;

  explicit RedisQuotaStore(QuotaStoreOptions options);
  ~RedisQuotaStore();  // waits for what is under way, at most one timeout
  RedisQuotaStore(const RedisQuotaStore&) = delete;
  RedisQuotaStore& operator=(const RedisQuotaStore&) = delete;

  // `connection`: as take_news() told it; of another one the asks are dropped. REQUIRES: connected,
  // and the answer of the last exchange was taken.
  void send(std::vector<KeyedAsk> asks, std::uint64_t connection);
  struct News {
    std::uint64_t connection = 0;  // grows with every change of is_connected
    bool is_connected = false;
    std::string reason;                   // why not
    Duration settling{0};                 // when it connected: nothing is granted for so long
    std::optional<LeaseAnswers> answers;  // of an exchange of this connection
  };
  bool has_news() const { return has_news_.load(std::memory_order_acquire); }
  News take_news();
  const QuotaStoreCounters& counters() const { return counters_; }

 private:
  void run();
  void connect();
  bool pause(Duration time);  // true: stopping
  Result<Duration> hear_settling();
  Result<void> exchange(const std::vector<KeyedAsk>& asks);
  RedisCommand command(const KeyedAsk& keyed) const;
  void set_connected(Duration settling);
  void set_lost(const std::string& reason);
  void tell();

  const QuotaStoreOptions options_;
  QuotaStoreCounters counters_;
  // Of the store thread.
  std::optional<RedisConnection> redis_;
  std::string run_id_, session_, script_sha_;
  // Shared. Never held while the server is waited for.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<std::vector<KeyedAsk>> asks_;
  std::uint64_t asks_connection_ = 0;
  News news_;
  bool is_stopping_ = false;
  std::atomic<bool> has_news_{false};  // release after news_; pairs with has_news()
  std::thread thread_;
};

}  // namespace sluice::gw
