// `sluice tenant|key|quota|usage`: the admin routes of a running gateway from the command line.
// Fields are given as NAME=VALUE. The admin key comes from a file or the environment, never from an
// argument, which others could read.
//
// Exit codes: 0 done; 1 not reached, or refused by the gateway (code and message on stderr);
// 2 wrong use.
#pragma once

#include <memory>
#include <optional>

namespace CLI {
class App;
}

namespace sluice::gw {

class AdminCommands {
 public:
  // Adds its commands to the program's; `key`: the command that has others of its own.
  AdminCommands(CLI::App& app, CLI::App& key);
  ~AdminCommands();

  // The exit code of the one that was given; nothing: another command was.
  std::optional<int> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::gw
