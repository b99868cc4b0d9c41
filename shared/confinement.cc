// The lists of system calls, and their installation through libseccomp.
#include "shared/confinement.h"

#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>

namespace sluice {
namespace {

#ifdef SLUICE_SANITIZED
constexpr bool kHasConfinement = false;
#else
constexpr bool kHasConfinement = true;
#endif

// Calls that a kernel or an architecture does not have get negative numbers, which libseccomp
// skips.

// Other processes' memory and descriptors, and ways around a filter.
constexpr int kIntrusion[] = {SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv),
                              SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_getfd), SCMP_SYS(kcmp)};

constexpr int kPrograms[] = {SCMP_SYS(execve), SCMP_SYS(execveat)};

constexpr int kSockets[] = {SCMP_SYS(socket),  SCMP_SYS(socketpair), SCMP_SYS(connect),
                            SCMP_SYS(bind),    SCMP_SYS(listen),     SCMP_SYS(accept),
                            SCMP_SYS(accept4), SCMP_SYS(sendto)};

// The machine's own matters. io_uring carries out calls that no filter sees.
constexpr int kSystem[] = {SCMP_SYS(bpf),
                           SCMP_SYS(perf_event_open),
                           SCMP_SYS(userfaultfd),
                           SCMP_SYS(io_uring_setup),
                           SCMP_SYS(keyctl),
                           SCMP_SYS(add_key),
                           SCMP_SYS(request_key),
                           SCMP_SYS(mount),
                           SCMP_SYS(umount2),
                           SCMP_SYS(move_mount),
                           SCMP_SYS(open_tree),
                           SCMP_SYS(fsopen),
                           SCMP_SYS(fsconfig),
                           SCMP_SYS(fsmount),
                           SCMP_SYS(fspick),
                           SCMP_SYS(mount_setattr),
                           SCMP_SYS(pivot_root),
                           SCMP_SYS(chroot),
                           SCMP_SYS(unshare),
                           SCMP_SYS(setns),
                           SCMP_SYS(init_module),
                           SCMP_SYS(finit_module),
                           SCMP_SYS(delete_module),
                           SCMP_SYS(kexec_load),
                           SCMP_SYS(kexec_file_load),
                           SCMP_SYS(reboot),
                           SCMP_SYS(swapon),
                           SCMP_SYS(swapoff),
                           SCMP_SYS(acct),
                           SCMP_SYS(quotactl),
                           SCMP_SYS(settimeofday),
                           SCMP_SYS(clock_settime),
                           SCMP_SYS(clock_adjtime),
                           SCMP_SYS(adjtimex),
                           SCMP_SYS(iopl),
                           SCMP_SYS(ioperm),
                           SCMP_SYS(mknod),
                           SCMP_SYS(mknodat),
                           SCMP_SYS(open_by_handle_at),
                           SCMP_SYS(syslog),
                           SCMP_SYS(sethostname),
                           SCMP_SYS(setdomainname)};

// What a loaded worker lives on, whatever its arguments. With glibc a call has several names over
// the versions (poll and ppoll, futex and futex_waitv): all are here.
constexpr int kWorkerCalls[] = {
    // Memory; mmap and mprotect have rules of their own below.
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk),
    // Threads that exist already.
    SCMP_SYS(futex), SCMP_SYS(futex_waitv), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
    SCMP_SYS(getcpu), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(gettid), SCMP_SYS(getpid),
    SCMP_SYS(exit), SCMP_SYS(exit_group),
    // Signals: abort() and returning from a handler.
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(restart_syscall),
    // Descriptors that it has: doorbells, its log on standard error, regions.
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(close),
    SCMP_SYS(fstat), SCMP_SYS(lseek), SCMP_SYS(poll), SCMP_SYS(ppoll),
    // Time and randomness.
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time),
    SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(getrandom)};

// A filter under construction. The first error is kept; load() tells it.
class Filter {
 public:
  explicit Filter(std::uint32_t default_action) : context_(seccomp_init(default_action)) {
    if (context_ == nullptr) fail(ENOMEM);
    if (error_ != 0) return;
    // All threads, or none: a pool that was started while loading is confined as well.
    keep(seccomp_attr_set(context_, SCMP_FLTATR_CTL_TSYNC, 1));
    // A binary tree: a step makes several calls, and a list of sixty comparisons is not free.
    keep(seccomp_attr_set(context_, SCMP_FLTATR_CTL_OPTIMIZE, 2));
    // Older kernels slow down all code under a filter against speculative reads of one's own
    // memory. That protects interpreters of foreign code; there is none here.
    keep(seccomp_attr_set(context_, SCMP_FLTATR_CTL_SSB, 1));
  }
  ~Filter() { seccomp_release(context_); }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  void all(std::uint32_t action, std::span<const int> calls) {
    for (const int call : calls) only(action, call, {});
  }
  void only(std::uint32_t action, int call, std::initializer_list<scmp_arg_cmp> conditions) {
    if (error_ != 0) return;
    keep(seccomp_rule_add_array(context_, action, call, static_cast<unsigned>(conditions.size()),
                                conditions.begin()));
  }
  Result<void> load() {
    if (error_ == 0) keep(seccomp_load(context_));
    if (error_ == 0) return {};
    return make_error(Errc::io_error, std::string("cannot install a system call filter (") +
                                          std::strerror(error_) +
                                          "); confine_processes: false runs without");
  }

 private:
  void keep(int result) {
    if (result < 0) fail(-result);
  }
  void fail(int error) {
    if (error_ == 0) error_ = error;
  }
  scmp_filter_ctx context_;
  int error_ = 0;
};

constexpr std::uint32_t kRefuse = SCMP_ACT_ERRNO(EPERM);

constexpr scmp_arg_cmp equals(unsigned argument, scmp_datum_t value) {
  return {argument, SCMP_CMP_EQ, value, 0};
}
constexpr scmp_arg_cmp has_not(unsigned argument, scmp_datum_t bits) {
  return {argument, SCMP_CMP_MASKED_EQ, bits, 0};
}

void allow_worker_calls(Filter& filter, int control_fd) {
  filter.all(SCMP_ACT_ALLOW, kWorkerCalls);
  // No new code: neither from files nor written by itself.
  filter.only(SCMP_ACT_ALLOW, SCMP_SYS(mmap), {has_not(2, PROT_EXEC)});
  filter.only(SCMP_ACT_ALLOW, SCMP_SYS(mprotect), {has_not(2, PROT_EXEC)});
  // The size of a region: stat of a descriptor. Of a name it would tell whether a file exists.
  filter.only(SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), {equals(3, AT_EMPTY_PATH)});
  for (const int command : {F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GET_SEALS})
    filter.only(SCMP_ACT_ALLOW, SCMP_SYS(fcntl), {equals(1, static_cast<scmp_datum_t>(command))});
  for (const int call : {SCMP_SYS(recvmsg), SCMP_SYS(sendmsg)})
    filter.only(SCMP_ACT_ALLOW, call, {equals(0, static_cast<scmp_datum_t>(control_fd))});
  // abort() signals its own thread.
  filter.only(SCMP_ACT_ALLOW, SCMP_SYS(tgkill), {equals(0, static_cast<scmp_datum_t>(::getpid()))});
}

}  // namespace

void give_up_privileges() {
  // These fail only where the kernel lacks them, which Linux has not since 3.5.
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  const rlimit no_cores{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_cores);
}

Result<void> confine_service() {
  if (!kHasConfinement) return {};
  Filter filter(SCMP_ACT_ALLOW);
  filter.all(kRefuse, kIntrusion);
  filter.all(kRefuse, kSystem);
  return filter.load();
}

Result<void> confine_gateway() {
  if (!kHasConfinement) return {};
  Filter filter(SCMP_ACT_ALLOW);
  filter.all(SCMP_ACT_KILL_PROCESS, kPrograms);
  filter.all(SCMP_ACT_KILL_PROCESS, kIntrusion);
  return filter.load();
}

Result<void> confine_worker(DeviceAccess access, int control_fd) {
  if (!kHasConfinement) return {};
  Filter filter(access == DeviceAccess::none ? kRefuse : SCMP_ACT_ALLOW);
  filter.all(SCMP_ACT_KILL_PROCESS, kPrograms);
  filter.all(SCMP_ACT_KILL_PROCESS, kIntrusion);
  if (access == DeviceAccess::none)
    allow_worker_calls(filter, control_fd);
  else
    filter.all(kRefuse, kSockets);
  return filter.load();
}

bool has_confinement() {
  return kHasConfinement;
}

}  // namespace sluice
