// RedisConnection: commands to one Redis server over blocking hiredis, pipelined and within a time.
// What the server says is input: a reply that is too long, of another kind, or that comes too late
// ends the connection. Errors carry what the server said, but of a command with a password nothing
// of it beyond its first word. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shared/clock.h"
#include "shared/result.h"

struct redisContext;

namespace sluice::gw {

struct RedisOptions {
  std::string address = "127.0.0.1";  // or the absolute path of a Unix socket
  std::uint16_t port = 6379;
  std::uint32_t database = 0;
  std::string username;  // empty: the default user
  std::string password;  // empty: none is sent
  Duration connect_timeout{std::chrono::seconds{1}};
  Duration command_timeout{std::chrono::milliseconds{500}};  // of one run() in all
};

using RedisCommand = std::vector<std::string>;

struct RedisReply {
  bool is_error = false;
  std::string text;  // a number in decimal; empty: nothing
};

class RedisConnection {
 public:
  static constexpr std::size_t kReplyBytesMax = 256u << 10;  // that are not taken yet

  // Connects, authenticates, selects the database. Errors: io_error.
  static Result<RedisConnection> open(const RedisOptions& options);
  // Sends all, then takes one reply for each, in order. After an error (io_error) the connection is
  // of no use.
  Result<std::vector<RedisReply>> run(std::span<const RedisCommand> commands);
  Result<RedisReply> run_one(const RedisCommand& command);

 private:
  struct Closer {
    void operator()(redisContext* context) const;
  };
  struct Functions;  // hiredis' reader makes its objects by them
  struct FunctionsDeleter {
    void operator()(Functions* functions) const;
  };
  RedisConnection() = default;

  std::unique_ptr<Functions, FunctionsDeleter> functions_;
  std::unique_ptr<redisContext, Closer> context_;  // refers to functions_
  Duration command_timeout_{};
};

}  // namespace sluice::gw
