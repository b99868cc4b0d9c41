// RedisConnection: the only file that sees hiredis.
#include "gateway/store/redis_connection.h"

#include <hiredis/hiredis.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace sluice::gw {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::size_t kShownMax = 120;

timeval timeval_of(Duration time) {
  const auto us = std::max<std::int64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(time).count(), 1000);
  return {us / 1'000'000, us % 1'000'000};
}

// Text of a peer, for a log line.
std::string shown(const char* text, std::size_t size) {
  std::string out(text, std::min(size, kShownMax));
  for (char& c : out)
    if (c < ' ' || c > '~' || c == '"' || c == '\\') c = '.';
  return out;
}
std::string shown(const std::string& text) {
  return shown(text.data(), text.size());
}

Error connection_error(const std::string& what) {
  return make_error(Errc::io_error, "redis: " + what);
}

Error connection_error(const redisContext& context) {
  return connection_error(shown(std::string(context.errstr)));
}

std::string first_word(const std::string& text) {
  return shown(text.substr(0, text.find(' ')));
}

}  // namespace

// hiredis' own, but for arrays: none of our commands has one for an answer, and a length alone
// would allocate it.
struct RedisConnection::Functions {
  redisReplyObjectFunctions table;
};

void RedisConnection::FunctionsDeleter::operator()(Functions* functions) const {
  delete functions;
}

void RedisConnection::Closer::operator()(redisContext* context) const {
  ::redisFree(context);
}

Result<RedisConnection> RedisConnection::open(const RedisOptions& options) {
  RedisConnection connection;
  const timeval timeout = timeval_of(options.connect_timeout);
  const bool is_path = options.address.starts_with('/');
  connection.context_.reset(
      is_path ? ::redisConnectUnixWithTimeout(options.address.c_str(), timeout)
              : ::redisConnectWithTimeout(options.address.c_str(), options.port, timeout));
  redisContext* const context = connection.context_.get();
  if (context == nullptr) return connection_error("out of memory");
  if (context->err != 0) return connection_error(*context);
  connection.functions_.reset(new Functions{*context->reader->fn});
  connection.functions_->table.createArray = [](const redisReadTask*, auto) -> void* {
    return nullptr;
  };
  context->reader->fn = &connection.functions_->table;
  if (::redisSetTimeout(context, timeval_of(options.command_timeout)) != REDIS_OK)
    return connection_error(*context);
  if (!is_path && ::redisEnableKeepAlive(context) != REDIS_OK) return connection_error(*context);
  connection.command_timeout_ = options.command_timeout;
  if (!options.password.empty()) {
    RedisCommand auth{"AUTH", options.password};
    if (!options.username.empty()) auth.insert(auth.begin() + 1, options.username);
    const Result<RedisReply> reply = connection.run_one(auth);
    if (!reply) return reply.error();
    if (reply->is_error) return connection_error("AUTH: " + first_word(reply->text));
  }
  if (options.database != 0) {
    const Result<RedisReply> reply =
        connection.run_one({"SELECT", std::to_string(options.database)});
    if (!reply) return reply.error();
    if (reply->is_error) return connection_error("SELECT: " + shown(reply->text));
  }
  return connection;
}

Result<std::vector<RedisReply>> RedisConnection::run(std::span<const RedisCommand> commands) {
  redisContext* const context = context_.get();
  const auto deadline = SteadyClock::now() + command_timeout_;
  for (const RedisCommand& command : commands) {
    std::vector<const char*> words;
    std::vector<std::size_t> sizes;
    for (const std::string& word : command) {
      words.push_back(word.data());
      sizes.push_back(word.size());
    }
    if (::redisAppendCommandArgv(context, static_cast<int>(words.size()), words.data(),
                                 sizes.data()) != REDIS_OK)
      return connection_error(*context);
  }
  // Blocks for at most the socket's timeout, which is the same.
  for (int is_written = 0; is_written == 0;) {
    if (::redisBufferWrite(context, &is_written) != REDIS_OK) return connection_error(*context);
    if (SteadyClock::now() >= deadline) return connection_error("timed out while writing");
  }
  std::vector<RedisReply> replies;
  while (replies.size() < commands.size()) {
    void* raw = nullptr;
    if (::redisReaderGetReply(context->reader, &raw) != REDIS_OK)
      return connection_error("a reply that no command has: " +
                              shown(std::string(context->reader->errstr)));
    if (raw != nullptr) {
      const std::unique_ptr<void, void (*)(void*)> owned(raw, ::freeReplyObject);
      const auto& reply = *static_cast<const redisReply*>(raw);
      RedisReply& taken = replies.emplace_back();
      taken.is_error = reply.type == REDIS_REPLY_ERROR;
      if (reply.type == REDIS_REPLY_INTEGER) {
        taken.text = std::to_string(reply.integer);
      } else if (reply.type == REDIS_REPLY_STRING || reply.type == REDIS_REPLY_STATUS ||
                 taken.is_error) {
        taken.text.assign(reply.str, reply.len);
      } else if (reply.type != REDIS_REPLY_NIL) {
        return connection_error("a reply that no command has");
      }
      continue;
    }
    if (context->reader->len > kReplyBytesMax) return connection_error("a reply is too long");
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now()).count();
    pollfd waited{context->fd, POLLIN, 0};
    if (left <= 0 || ::poll(&waited, 1, static_cast<int>(left)) == 0)
      return connection_error("timed out");
    if (::redisBufferRead(context) != REDIS_OK) return connection_error(*context);
  }
  return replies;
}

Result<RedisReply> RedisConnection::run_one(const RedisCommand& command) {
  Result<std::vector<RedisReply>> replies = run(std::span(&command, 1));
  if (!replies) return replies.error();
  return std::move(replies->front());
}

}  // namespace sluice::gw
