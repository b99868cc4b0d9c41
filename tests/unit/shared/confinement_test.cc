// Confinement, each case in a child of its own: what is given up stays given up. What a confined
// worker can still do, and what it can't, is shown with real processes (test_confinement.py).
#include "shared/confinement.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <thread>

namespace sluice {
namespace {

// The wait status of a child that runs `body` and exits with its result.
int in_child(const std::function<int()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return status;
}

int exit_code(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool is_refused(long result) {
  return result == -1 && errno == EPERM;
}

TEST(Confinement, PrivilegesAreGivenUp) {
  EXPECT_EQ(exit_code(in_child([] {
              give_up_privileges();
              rlimit cores{};
              ::getrlimit(RLIMIT_CORE, &cores);
              return ::prctl(PR_GET_DUMPABLE) +
                     2 * (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) +
                     4 * (cores.rlim_cur != 0 || cores.rlim_max != 0);
            })),
            0);
}

TEST(Confinement, AServiceMayStartProgramsButNotReachIntoOthers) {
  if (!has_confinement()) GTEST_SKIP() << "a sanitizer build";
  EXPECT_EQ(exit_code(in_child([] {
              give_up_privileges();
              if (!confine_service()) return 1;
              if (!is_refused(::syscall(SYS_ptrace, 0, 0, 0, 0))) return 2;
              if (!is_refused(::syscall(SYS_io_uring_setup, 1, nullptr))) return 3;
              if (!is_refused(::syscall(SYS_unshare, 0))) return 4;
              const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
              if (fd < 0) return 5;
              ::execl("/bin/true", "true", nullptr);
              return 6;
            })),
            0);
}

TEST(Confinement, AGatewayThatStartsAProgramIsEnded) {
  if (!has_confinement()) GTEST_SKIP() << "a sanitizer build";
  const int status = in_child([] {
    give_up_privileges();
    if (!confine_gateway()) return 1;
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return 2;
    ::execl("/bin/true", "true", nullptr);
    return 3;
  });
  EXPECT_TRUE(WIFSIGNALED(status)) << exit_code(status);
  EXPECT_EQ(WTERMSIG(status), SIGSYS);
}

TEST(Confinement, AWorkersFilterHoldsForThreadsThatExistAlready) {
  if (!has_confinement()) GTEST_SKIP() << "a sanitizer build";
  EXPECT_EQ(exit_code(in_child([] {
              give_up_privileges();
              std::atomic<bool> is_confined{false};
              std::atomic<int> outcome{0};
              std::thread thread([&] {
                is_confined.wait(false);
                if (!is_refused(::syscall(SYS_openat, -100, "/etc/hostname", 0))) outcome = 2;
                if (!is_refused(::syscall(SYS_socket, AF_INET, SOCK_STREAM, 0))) outcome = 3;
              });
              if (!confine_worker(DeviceAccess::none, 3)) outcome = 1;
              is_confined = true;
              is_confined.notify_one();
              thread.join();
              return outcome.load();
            })),
            0);
}

TEST(Confinement, AWorkerThatAbortsEndsByTheSignal) {
  if (!has_confinement()) GTEST_SKIP() << "a sanitizer build";
  const int status = in_child([]() -> int {
    give_up_privileges();
    if (!confine_worker(DeviceAccess::none, 3)) return 1;
    std::abort();
  });
  EXPECT_TRUE(WIFSIGNALED(status)) << exit_code(status);
  EXPECT_EQ(WTERMSIG(status), SIGABRT);
}

TEST(Confinement, AWorkerOnADeviceKeepsFilesButNoSocketsAndPrograms) {
  if (!has_confinement()) GTEST_SKIP() << "a sanitizer build";
  const int status = in_child([] {
    give_up_privileges();
    if (!confine_worker(DeviceAccess::files, 3)) return 1;
    if (::syscall(SYS_openat, -100, "/dev/null", 2) < 0) return 2;
    if (!is_refused(::syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0))) return 3;
    if (!is_refused(::syscall(SYS_connect, 0, nullptr, 0))) return 4;
    std::thread([] {}).join();
    ::execl("/bin/true", "true", nullptr);
    return 5;
  });
  EXPECT_TRUE(WIFSIGNALED(status)) << exit_code(status);
  EXPECT_EQ(WTERMSIG(status), SIGSYS);
}

}  // namespace
}  // namespace sluice
