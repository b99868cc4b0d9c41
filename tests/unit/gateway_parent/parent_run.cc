// The harness around a real parent.
#include "tests/unit/gateway_parent/parent_run.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "shared/check.h"

namespace sluice::gw::test {
namespace {

constexpr int kPatienceMs = 30'000;

bool wait_readable(int fd, int timeout_ms) {
  pollfd waited{fd, POLLIN, 0};
  return ::poll(&waited, 1, timeout_ms) == 1;
}

}  // namespace

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool process_exists(int pid) {
  return ::kill(pid, 0) == 0 || errno != ESRCH;
}

Scenario quick() {
  Scenario setup;
  setup.config.supervision.stall_floor = std::chrono::milliseconds(100);
  setup.config.supervision.restart_delay = std::chrono::milliseconds(10);
  setup.config.journal_slots = 16;
  return setup;
}

Peer::Peer(UniqueFd socket) : socket_(std::move(socket)) {
  std::istringstream text(next());
  text >> role_ >> pid_;
}

std::string Peer::next() {
  char bytes[512];
  if (!wait_readable(socket_.get(), kPatienceMs)) {
    ADD_FAILURE() << role_ << " says nothing";
    return "silence";
  }
  const ssize_t got = ::recv(socket_.get(), bytes, sizeof bytes, 0);
  return got <= 0 ? "gone" : std::string(bytes, static_cast<std::size_t>(got));
}

void Peer::order(const std::string& command) {
  order_last(command);
  for (std::string text = next(); text != "done"; text = next()) {
    if (text == "gone" || text == "silence") {
      ADD_FAILURE() << role_ << " ended at " << command;
      return;
    }
    kept_.push_back(text);
  }
}

void Peer::order_last(const std::string& command) {
  EXPECT_EQ(::send(socket_.get(), command.data(), command.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(command.size()));
}

std::string Peer::expect(ControlKind kind) {
  std::string text;
  if (kept_.empty()) {
    text = next();
  } else {
    text = kept_.front();
    kept_.erase(kept_.begin());
  }
  const std::string wanted = "message kind=" + std::to_string(static_cast<unsigned>(kind)) + " ";
  EXPECT_EQ(text.substr(0, wanted.size()), wanted) << text;
  return text;
}

void Peer::expect_closed() {
  EXPECT_EQ(kept_.empty() ? next() : kept_.front(), "closed");
}

bool Peer::has_message(int timeout_ms) {
  return !kept_.empty() || wait_readable(socket_.get(), timeout_ms);
}

ParentRun::ParentRun(Scenario setup) {
  std::string pattern = testing::TempDir() + "sluice-parent-XXXXXX";
  root_ = ::mkdtemp(pattern.data());
  state_dir_ = setup.state_dir.empty() ? root_ + "/state" : setup.state_dir;
  err_path_ = root_ + "/stderr";
  listener_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = root_ + "/socket";
  CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  CHECK(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  CHECK(::listen(listener_.get(), 16) == 0);
  int ends[2];
  CHECK(::pipe2(ends, O_CLOEXEC) == 0);
  out_.reset(ends[0]);
  const UniqueFd write_end(ends[1]);

  ParentOptions options;
  options.config = setup.config;
  options.config.state_dir = state_dir_;
  options.reload = setup.reload;
  const auto command = [&](const std::string& program, const char* role) {
    return std::vector<std::string>{program.empty() ? SCRIPTED_CHILD : program, role, path};
  };
  options.gateway_command = command(setup.gateway_program, "gateway");
  options.worker_command = command(setup.worker_program, "worker");
  pid_ = ::fork();
  CHECK(pid_ >= 0);
  if (pid_ != 0) return;
  const UniqueFd err(::open(err_path_.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
  ::dup2(write_end.get(), STDOUT_FILENO);
  ::dup2(err.get(), STDERR_FILENO);
  if (setup.file_bytes_max != 0) {
    const rlimit limit{setup.file_bytes_max, setup.file_bytes_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ::_exit(run_parent(std::move(options)));
}

ParentRun::~ParentRun() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (testing::Test::HasFailure()) std::fprintf(stderr, "parent said:\n%s", err().c_str());
  std::filesystem::remove_all(root_);
}

Peer ParentRun::next_child() {
  if (!wait_readable(listener_.get(), kPatienceMs)) ADD_FAILURE() << "no child connects";
  return Peer(UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
}

std::pair<Peer, Peer> ParentRun::start_children() {
  Peer first = next_child();
  Peer second = next_child();
  if (first.role() == "worker") std::swap(first, second);
  first.expect(ControlKind::gateway_start);
  second.expect(ControlKind::worker_start);
  return {std::move(first), std::move(second)};
}

std::pair<Peer, Peer> ParentRun::serve() {
  auto [gateway, worker] = start_children();
  gateway.order("ready 1234");
  worker.order("hello");
  gateway.expect(ControlKind::worker_up);
  out_line();
  return {std::move(gateway), std::move(worker)};
}

void ParentRun::signal(int signal) {
  EXPECT_EQ(::kill(pid_, signal), 0);
}

int ParentRun::wait() {
  int status = 0;
  EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

std::string ParentRun::out() {
  std::string text;
  char bytes[512];
  for (ssize_t got; (got = ::read(out_.get(), bytes, sizeof bytes)) > 0;)
    text.append(bytes, static_cast<std::size_t>(got));
  return text;
}

std::string ParentRun::out_line() {
  std::string line;
  for (char c = 0;
       wait_readable(out_.get(), kPatienceMs) && ::read(out_.get(), &c, 1) == 1 && c != '\n';)
    line += c;
  return line;
}

std::string ParentRun::err() {
  std::ifstream file(err_path_);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace sluice::gw::test
