// A parent in a process of its own, with scripted children that the test drives step by step. All
// waits end with an event or fail after a long limit; nothing sleeps.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gateway/parent/parent.h"
#include "shared/control.h"
#include "shared/unique_fd.h"
#include "tests/support/canned_config.h"

namespace sluice::gw::test {

// One scripted child, from the test's side.
class Peer {
 public:
  explicit Peer(UniqueFd socket);
  const std::string& role() const { return role_; }  // "gateway" or "worker"
  int pid() const { return pid_; }

  // Sends a command and waits until it was obeyed. Messages that arrive meanwhile are kept.
  void order(const std::string& command);
  void order_last(const std::string& command);  // one that ends the child
  // The next message of this kind, as text; fails the test when another one comes first.
  std::string expect(ControlKind kind);
  void expect_closed();
  bool has_message(int timeout_ms);  // anything at all

 private:
  std::string next();
  UniqueFd socket_;
  std::string role_;
  int pid_ = 0;
  std::vector<std::string> kept_;
};

struct Scenario {
  cfg::Config config = sluice::test::canned_config();
  std::function<Result<cfg::Config>()> reload;
  std::string gateway_program, worker_program;  // empty: the scripted child
  std::uint64_t file_bytes_max = 0;             // 0: no limit
  std::string state_dir;                        // empty: a fresh one
};

class ParentRun {
 public:
  explicit ParentRun(Scenario setup = {});
  ~ParentRun();

  Peer next_child();                       // the next that connects
  std::pair<Peer, Peer> start_children();  // gateway and worker, with their start messages read
  // Gateway bound at port 1234 and the worker up and told.
  std::pair<Peer, Peer> serve();

  void signal(int signal);
  int wait();              // the parent's exit code, or 1000 + signal
  std::string out();       // all of its stdout; after wait()
  std::string err();       // all of its stderr so far
  std::string out_line();  // the next line of stdout, waited for
  int pid() const { return pid_; }
  const std::string& state_dir() const { return state_dir_; }

 private:
  std::string root_, state_dir_;
  UniqueFd listener_, out_;
  std::string err_path_;
  int pid_ = -1;
};

bool contains(const std::string& text, const std::string& part);
bool process_exists(int pid);  // zombies count
Scenario quick();              // one worker, a short stall floor

}  // namespace sluice::gw::test
