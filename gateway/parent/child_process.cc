// fork, exec and wait for one child.
#include "gateway/parent/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "shared/check.h"

// glibc 2.36 declares these without C linkage.
extern "C" {
#include <sys/pidfd.h>
}

namespace sluice::gw {
namespace {

constexpr int kExecFailed = 127;

// Between fork and exec: only calls that are safe there. Everything else is close-on-exec.
[[noreturn]] void become(char* const* argv, int control, pid_t parent) {
  // The parent may have died before the request to die with it was made.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(kExecFailed);
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::setpgid(0, 0);  // Ctrl-C is for the parent, which drains
  const rlimit no_cores{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_cores);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGPIPE, SIGXFSZ}) ::signal(signal, SIG_DFL);

  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null >= 0) ::dup2(null, STDIN_FILENO);
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  if (control == kControlFd)
    ::fcntl(control, F_SETFD, 0);
  else
    ::dup2(control, kControlFd);
  ::execv(argv[0], argv);
  constexpr char kMessage[] = "sluice: cannot execute the child program\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  ::_exit(kExecFailed);
}

}  // namespace

Result<ChildProcess> ChildProcess::spawn(const std::vector<std::string>& command) {
  CHECK(!command.empty());
  if (::access(command.front().c_str(), X_OK) != 0)
    return make_error(Errc::io_error,
                      "cannot execute " + command.front() + ": " + std::strerror(errno));
  auto ends = ControlChannel::make_pair();
  if (!ends) return ends.error();
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);

  ChildProcess child;
  const pid_t parent = ::getpid();
  child.pid_ = ::fork();
  if (child.pid_ < 0) return system_error("fork");
  if (child.pid_ == 0) become(argv.data(), ends->second.get(), parent);
  // Not reaped yet, so the pid still names this child.
  child.pidfd_.reset(::pidfd_open(child.pid_, 0));
  if (!child.pidfd_) {
    const Error error = system_error("pidfd_open");
    ::kill(child.pid_, SIGKILL);
    ::waitpid(child.pid_, nullptr, 0);
    return error;
  }
  child.channel_ = ControlChannel(std::move(ends->first));
  return child;
}

void ChildProcess::kill() {
  if (pidfd_) ::pidfd_send_signal(pidfd_.get(), SIGKILL, nullptr, 0);
}

ChildChange ChildProcess::poll_change() {
  siginfo_t facts{};
  int got;
  do {
    got = ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &facts,
                   WEXITED | WSTOPPED | WCONTINUED | WNOHANG);
  } while (got != 0 && errno == EINTR);
  CHECK(got == 0);
  if (facts.si_pid == 0) return {};
  switch (facts.si_code) {
    case CLD_STOPPED:
      return {ChildChange::Kind::stopped, {}};
    case CLD_CONTINUED:
      return {ChildChange::Kind::continued, {}};
    case CLD_EXITED:
    case CLD_KILLED:
    case CLD_DUMPED:
      *this = ChildProcess();
      return {ChildChange::Kind::exited, {facts.si_code != CLD_EXITED, facts.si_status}};
    default:
      return {};
  }
}

ExitFacts ChildProcess::reap() {
  siginfo_t facts{};
  int got;
  do {
    got = ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &facts, WEXITED);
  } while (got != 0 && errno == EINTR);
  CHECK(got == 0);
  *this = ChildProcess();
  return {facts.si_code != CLD_EXITED, facts.si_status};
}

}  // namespace sluice::gw
