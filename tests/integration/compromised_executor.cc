// A worker that an attacker has taken over, for test_confinement.py: sluice-worker's own main()
// with this make_executor() in place of the shipped one. It loads like the canned executor; then,
// in its first step, it tries what an attacker would and writes each outcome to its log:
//
//   attempt=socket_inet errno=1
//
// `canned_crash_marker: fatal:NAME` names one attempt that ends the process instead.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "config/load_config.h"
#include "shared/shm_region.h"
#include "tokenizer/tokenizer.h"
#include "worker/canned_executor.h"
#include "worker/make_executor.h"

namespace sluice::eng {
namespace {

constexpr int kDescriptorsMax = 64;

// 0 for a call that succeeded.
void attempt(const char* name, const std::function<long()>& call) {
  errno = 0;
  const long result = call();
  std::fprintf(stderr, "attempt=%s errno=%d\n", name, result == -1 ? errno : 0);
}

void attempt_files() {
  // The system calls themselves: what glibc makes of open() differs over its versions.
  attempt("open_read", [] { return ::syscall(SYS_open, "/etc/hostname", O_RDONLY); });
  attempt("open_memory", [] { return ::syscall(SYS_open, "/proc/self/mem", O_RDWR); });
  attempt("openat", [] { return ::syscall(SYS_openat, AT_FDCWD, "/etc/hostname", O_RDONLY); });
  attempt("openat2", [] {
    std::uint64_t how[3]{};
    return ::syscall(SYS_openat2, AT_FDCWD, "/etc/hostname", how, sizeof how);
  });
  attempt("creat", [] { return ::syscall(SYS_creat, "/tmp/sluice-attack", 0600); });
  attempt("stat", [] {
    struct stat facts {};
    return ::syscall(SYS_newfstatat, AT_FDCWD, "/etc/hostname", &facts, 0);
  });
  attempt("unlink", [] { return ::syscall(SYS_unlink, "/tmp/sluice-attack"); });
  attempt("memfd", [] { return ::syscall(SYS_memfd_create, "attack", 0); });
  attempt("io_uring", [] { return ::syscall(SYS_io_uring_setup, 4, nullptr); });
}

void attempt_sockets() {
  attempt("socket_inet", [] { return ::syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); });
  attempt("socket_unix", [] { return ::syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0); });
  attempt("socket_netlink", [] { return ::syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 0); });
  attempt("socketpair", [] {
    int ends[2];
    return ::syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, ends);
  });
  attempt("sendto", [] { return ::syscall(SYS_sendto, STDERR_FILENO, "x", 1, 0, nullptr, 0); });
  attempt("sendmsg_elsewhere", [] {
    msghdr message{};
    return ::syscall(SYS_sendmsg, STDERR_FILENO, &message, 0);
  });
}

void attempt_processes() {
  // Where a fork is not refused, the child ends at once.
  const auto end_child = [](long pid) {
    if (pid == 0) ::_exit(0);
    return pid;
  };
  attempt("fork", [&] { return end_child(::syscall(SYS_fork)); });
  attempt("clone", [&] {
    return end_child(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  });
  attempt("kill_parent", [] { return ::syscall(SYS_kill, ::getppid(), 0); });
  attempt("tgkill_parent", [] { return ::syscall(SYS_tgkill, ::getppid(), ::getppid(), 0); });
  attempt("become_dumpable", [] { return ::syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0); });
  attempt("raise_limit", [] {
    const std::uint64_t limit[2] = {~0ull, ~0ull};
    return ::syscall(SYS_prlimit64, 0, 4 /* RLIMIT_CORE */, limit, nullptr);
  });
  attempt("setuid", [] { return ::syscall(SYS_setuid, 0); });
}

void attempt_code() {
  attempt("map_executable", [] {
    return ::syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                     -1, 0);
  });
  attempt("make_executable", [] {
    void* const page =
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return ::syscall(SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC);
  });
}

bool is_gateway_region(int fd) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  struct stat facts {};
  if (seals < 0 || ::fstat(fd, &facts) != 0 || facts.st_size < 4096) return false;
  // The worker's own region is there too: the header says whose it is.
  void* const base = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return false;
  const auto* const header = static_cast<const shm::RegionHeader*>(base);
  const bool found = header->magic == shm::kRegionMagic &&
                     header->kind == static_cast<std::uint32_t>(shm::RegionKind::submit);
  ::munmap(base, 4096);
  return found;
}

void attempt_region() {
  int regions = 0;
  for (int fd = 0; fd < kDescriptorsMax; ++fd) {
    if (!is_gateway_region(fd)) continue;
    ++regions;
    attempt("region_map_writable", [fd] {
      return ::syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    });
    attempt("region_make_writable", [fd] {
      void* const base = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
      return ::syscall(SYS_mprotect, base, 4096, PROT_READ | PROT_WRITE);
    });
    attempt("region_write", [fd] { return ::syscall(SYS_write, fd, "attack", 6); });
    attempt("region_pwrite", [fd] { return ::syscall(SYS_pwrite64, fd, "attack", 6, 0); });
    attempt("region_shrink", [fd] { return ::syscall(SYS_ftruncate, fd, 0); });
    attempt("region_punch", [fd] {
      return ::syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
    });
    attempt("region_unseal", [fd] { return ::syscall(SYS_fcntl, fd, F_ADD_SEALS, 0); });
  }
  std::fprintf(stderr, "attempts_done regions=%d\n", regions);
}

void attempt_fatal(std::string_view name) {
  if (name == "execve") {
    const char* const words[] = {"/bin/true", nullptr};
    ::syscall(SYS_execve, words[0], words, nullptr);
  } else if (name == "ptrace") {
    ::syscall(SYS_ptrace, PTRACE_ATTACH, ::getppid(), nullptr, nullptr);
  } else if (name == "read_memory") {
    char byte = 0;
    const iovec here{&byte, 1};
    const iovec there{&byte, 1};
    ::syscall(SYS_process_vm_readv, ::getppid(), &here, 1, &there, 1, 0);
  }
  std::fprintf(stderr, "attempt=%s survived errno=%d\n", std::string(name).c_str(), errno);
}

class CompromisedExecutor final : public Executor {
 public:
  CompromisedExecutor(CannedModel model, std::string fatal)
      : canned_(std::move(model)), fatal_(std::move(fatal)) {}
  WorkerFacts facts() const override { return canned_.facts(); }
  void zero_blocks(std::span<const BlockId> blocks) override { canned_.zero_blocks(blocks); }
  std::span<const float> forward(std::span<const SequenceSpan> spans) override {
    if (!has_attacked_) attack();
    return canned_.forward(spans);
  }

 private:
  void attack() {
    has_attacked_ = true;
    if (!fatal_.empty()) return attempt_fatal(fatal_);
    attempt_files();
    attempt_sockets();
    attempt_processes();
    attempt_code();
    attempt_region();
  }
  CannedExecutor canned_;
  std::string fatal_;
  bool has_attacked_ = false;
};

}  // namespace

Result<std::unique_ptr<Executor>> make_executor(const cfg::Model& model, const LoadProgress&) {
  auto tokenizer = tok::Tokenizer::load(cfg::tokenizer_path(model));
  if (!tokenizer) return tokenizer.error();
  CannedModel canned;
  canned.facts.vocab_size = tokenizer->vocabulary().size;
  canned.facts.context_tokens = model.context_tokens;
  canned.facts.block_tokens = model.block_tokens;
  canned.facts.num_blocks = model.num_blocks;
  canned.facts.sequences_max = model.sequences_max;
  canned.facts.step_tokens_max = model.step_tokens_max;
  canned.eos = tokenizer->vocabulary().eos;
  for (TokenId id = 0; id < canned.facts.vocab_size; ++id)
    if (!tokenizer->is_special(id)) canned.readable_ids.push_back(id);
  constexpr std::string_view kFatal = "fatal:";
  const std::string& marker = model.canned_crash_marker;
  return std::unique_ptr<Executor>(std::make_unique<CompromisedExecutor>(
      std::move(canned), marker.starts_with(kFatal) ? marker.substr(kFatal.size()) : ""));
}

}  // namespace sluice::eng
