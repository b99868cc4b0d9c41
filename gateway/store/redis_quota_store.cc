// RedisQuotaStore: connecting, exchanges, and the strict reading of what the server answers.
#include "gateway/store/redis_quota_store.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <string_view>
#include <utility>

#include "gateway/store/quota_script.h"
#include "shared/check.h"

namespace sluice::gw {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kAnswerBytesMax = 160;
constexpr std::int64_t kMinuteTtlMs = 3 * 60'000;
constexpr std::int64_t kDayTtlMs = 3 * 86'400'000ll;
constexpr std::int64_t kMonthTtlMs = 63 * 86'400'000ll;

Error store_error(std::string what) {
  return make_error(Errc::io_error, "redis: " + std::move(what));
}

// Words of decimal digits, exactly as many as there are places.
bool read_numbers(std::string_view text, std::span<std::int64_t> numbers) {
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) {
      if (!text.starts_with(' ')) return false;
      text.remove_prefix(1);
    }
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), numbers[i]);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  }
  return text.empty();
}

// Of the server, or of a proxy that says what it likes.
std::optional<LeaseAnswer> read_answer(const std::string& text, const LeaseAsk& ask,
                                       LeaseAnswers& all) {
  constexpr auto kMost = static_cast<std::int64_t>(kSharedAmountMax);
  constexpr std::int64_t kSettlingMax = 3'600'000;
  std::array<std::int64_t, 6> numbers{};
  if (text.size() > kAnswerBytesMax || !read_numbers(text, numbers)) return std::nullopt;
  const auto [start, settling, granted, others, retry, is_short] = numbers;
  const bool is_sound = start >= 0 && start <= kMost && settling >= 0 && settling <= kSettlingMax &&
                        granted >= 0 && others >= 0 && retry >= -1 && retry <= kMost / 1'000'000 &&
                        (is_short == 0 || is_short == 1);
  if (!is_sound || static_cast<std::uint64_t>(granted) > ask.want) return std::nullopt;
  all.store_life = static_cast<std::uint64_t>(start);
  all.settling = milliseconds(settling);
  LeaseAnswer answer;
  answer.granted = static_cast<std::uint64_t>(granted);
  answer.others = static_cast<std::uint64_t>(others);
  if (retry > 0) answer.retry_after = milliseconds(retry);
  answer.is_short = is_short == 1;
  return answer;
}

std::string value_of(std::string_view info, std::string_view name) {
  const std::size_t at = info.find(name);
  if (at == std::string_view::npos) return "";
  info.remove_prefix(at + name.size());
  return std::string(info.substr(0, info.find_first_of("\r\n")));
}

bool is_word(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
  });
}

struct Class {
  const char* letter;
  std::int64_t ttl_ms;
};
Class class_of(LimitKind kind) {
  if (index_of(kind) < kMinuteKinds) return {"m", kMinuteTtlMs};
  if (kind == LimitKind::tokens_per_day) return {"p", kDayTtlMs};
  if (kind == LimitKind::monthly_budget) return {"p", kMonthTtlMs};
  return {"c", kMinuteTtlMs};
}

}  // namespace

RedisQuotaStore::RedisQuotaStore(QuotaStoreOptions options) : options_(std::move(options)) {
  CHECK(!options_.gateway.empty());
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), "quota-store");
}

RedisQuotaStore::~RedisQuotaStore() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void RedisQuotaStore::send(std::vector<KeyedAsk> asks, std::uint64_t connection) {
  {
    const std::lock_guard lock(mutex_);
    CHECK(!asks.empty() && asks.size() <= kAsksMax);
    asks_ = std::move(asks);
    asks_connection_ = connection;
  }
  wake_.notify_one();
}

RedisQuotaStore::News RedisQuotaStore::take_news() {
  const std::lock_guard lock(mutex_);
  has_news_.store(false, std::memory_order_release);
  News news = news_;
  news_.answers.reset();
  return news;
}

void RedisQuotaStore::tell() {
  has_news_.store(true, std::memory_order_release);
  if (options_.has_news) options_.has_news();
}

void RedisQuotaStore::set_connected(Duration settling) {
  {
    const std::lock_guard lock(mutex_);
    ++news_.connection;
    news_.is_connected = true;
    news_.reason.clear();
    news_.settling = settling;
    asks_.reset();  // those of an earlier connection
  }
  tell();
}

void RedisQuotaStore::set_lost(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!news_.is_connected && news_.reason == reason) return;
    if (news_.is_connected) ++news_.connection;
    news_.is_connected = false;
    news_.reason = reason;
    news_.answers.reset();
    asks_.reset();
  }
  tell();
}

bool RedisQuotaStore::pause(Duration time) {
  std::unique_lock lock(mutex_);
  return wake_.wait_for(lock, time, [this] { return is_stopping_; });
}

void RedisQuotaStore::connect() {
  const auto fail = [&](const Error& error) {
    redis_.reset();
    counters_.failures.fetch_add(1, std::memory_order_relaxed);
    set_lost(error.detail);
  };
  Result<RedisConnection> opened = RedisConnection::open(options_.redis);
  if (!opened) return fail(opened.error());
  redis_.emplace(std::move(*opened));
  const RedisCommand commands[] = {{"INFO", "server"},
                                   {"SCRIPT", "LOAD", std::string(kQuotaScript)}};
  const Result<std::vector<RedisReply>> replies = redis_->run(commands);
  if (!replies) return fail(replies.error());
  for (const RedisReply& reply : *replies)
    if (reply.is_error)
      return fail(store_error(reply.text.substr(0, reply.text.find(' ')) + " at the start"));
  run_id_ = value_of((*replies)[0].text, "run_id:");
  session_ = value_of((*replies)[0].text, "server_time_usec:");
  script_sha_ = (*replies)[1].text;
  std::uint64_t time = 0;
  const auto [end, error] =
      std::from_chars(session_.data(), session_.data() + session_.size(), time);
  const bool is_time = error == std::errc() && end == session_.data() + session_.size() &&
                       time > 0 && time <= kSharedAmountMax;
  if (!is_word(run_id_) || !is_word(script_sha_) || !is_time)
    return fail(
        store_error("the server does not say its run_id and server_time_usec (Redis 6 or later)"));
  const Result<Duration> settling = hear_settling();
  if (!settling) return fail(settling.error());
  counters_.connects.fetch_add(1, std::memory_order_relaxed);
  set_connected(*settling);
}

// The script once for nothing: a new server begins to settle with the first gateway that connects.
Result<Duration> RedisQuotaStore::hear_settling() {
  const KeyedAsk nothing{"none", {}};
  const Result<RedisReply> reply = redis_->run_one(command(nothing));
  if (!reply) return reply.error();
  LeaseAnswers answers;
  if (reply->is_error)
    return store_error("the script was refused: " + reply->text.substr(0, reply->text.find(' ')));
  if (!read_answer(reply->text, nothing.ask, answers))
    return store_error("an answer that makes no sense");
  return answers.settling;
}

RedisCommand RedisQuotaStore::command(const KeyedAsk& keyed) const {
  const LeaseAsk& ask = keyed.ask;
  const Class kind = class_of(ask.place.kind);
  std::string charges;
  if (*kind.letter == 'm') {
    for (const LeaseCharge& charge : ask.charges)
      charges += std::to_string(charge.age_ms) + ":" + std::to_string(charge.amount) + " ";
  } else {
    charges = std::to_string(ask.charges.empty() ? 0 : ask.charges.front().amount);
  }
  const auto lease_ms =
      std::chrono::duration_cast<milliseconds>(options_.leases.lease_time).count();
  return {"EVALSHA",
          script_sha_,
          "2",
          options_.key_prefix + "limit:" + keyed.key,
          options_.key_prefix + "life",
          options_.gateway,
          kind.letter,
          std::to_string(*kind.letter == 'p' ? ask.period : 0),
          std::to_string(ask.limit),
          std::to_string(ask.kept),
          std::to_string(ask.least),
          std::to_string(ask.most),
          std::to_string(ask.want),
          options_.leases.mode == LeaseMode::leased ? "l" : "s",
          std::to_string(lease_ms),
          std::to_string(kind.ttl_ms),
          run_id_,
          charges,
          session_};
}

Result<void> RedisQuotaStore::exchange(const std::vector<KeyedAsk>& asks) {
  std::vector<RedisCommand> commands;
  for (const KeyedAsk& ask : asks) commands.push_back(command(ask));
  Result<std::vector<RedisReply>> replies = redis_->run(commands);
  if (!replies) return replies.error();
  // A server that was told to forget its scripts: those asks once more, with the script itself.
  std::vector<RedisCommand> again;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < asks.size(); ++i) {
    if (!(*replies)[i].is_error || !(*replies)[i].text.starts_with("NOSCRIPT")) continue;
    places.push_back(i);
    again.push_back(std::move(commands[i]));
    again.back()[0] = "EVAL";
    again.back()[1] = std::string(kQuotaScript);
  }
  if (!again.empty()) {
    Result<std::vector<RedisReply>> more = redis_->run(again);
    if (!more) return more.error();
    for (std::size_t i = 0; i < places.size(); ++i) (*replies)[places[i]] = std::move((*more)[i]);
  }
  LeaseAnswers answers;
  for (std::size_t i = 0; i < asks.size(); ++i) {
    const RedisReply& reply = (*replies)[i];
    if (reply.is_error)
      return store_error("the script was refused: " + reply.text.substr(0, reply.text.find(' ')));
    const std::optional<LeaseAnswer> answer = read_answer(reply.text, asks[i].ask, answers);
    if (!answer) return store_error("an answer that makes no sense");
    answers.answers.push_back(*answer);
  }
  {
    const std::lock_guard lock(mutex_);
    news_.answers = std::move(answers);
  }
  tell();
  return {};
}

void RedisQuotaStore::run() {
  Duration retry = options_.retry_min;
  for (;;) {
    if (!redis_) {
      connect();
      if (!redis_) {
        if (pause(retry)) return;
        retry = std::min(2 * retry, options_.retry_max);
        continue;
      }
    }
    std::optional<std::vector<KeyedAsk>> asks;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, options_.leases.lease_time,
                     [this] { return is_stopping_ || asks_.has_value(); });
      if (is_stopping_) return;
      if (asks_ && asks_connection_ == news_.connection) asks.swap(asks_);
      asks_.reset();
    }
    const auto begin = std::chrono::steady_clock::now();
    Result<void> done;
    if (asks) {
      done = exchange(*asks);
      counters_.exchanges.fetch_add(1, std::memory_order_relaxed);
      const auto time = std::chrono::steady_clock::now() - begin;
      counters_.exchange_us.fetch_add(
          static_cast<std::uint64_t>(
              std::chrono::duration_cast<std::chrono::microseconds>(time).count()),
          std::memory_order_relaxed);
    } else if (const Result<RedisReply> reply = redis_->run_one({"PING"}); !reply) {
      done = reply.error();  // an idle connection: a server that is gone is noticed
    }
    if (done) {
      retry = options_.retry_min;
      continue;
    }
    redis_.reset();
    counters_.failures.fetch_add(1, std::memory_order_relaxed);
    set_lost(done.error().detail);
    if (pause(retry)) return;
    retry = std::min(2 * retry, options_.retry_max);
  }
}

}  // namespace sluice::gw
