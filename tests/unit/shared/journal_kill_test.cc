// A gateway killed at every single instruction of its journal stores. A traced child works on the
// journal; after each instruction that changed the file the tracer copies the file, opens the copy
// as the next gateway would and compares what is billed with what the child had done by then.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>

#include "tests/support/journal_image.h"

namespace sluice {
namespace {

constexpr std::uint32_t kSlots = 4;

// Shared with the child: how far it is.
struct Stage {
  std::atomic<std::uint32_t> begun;  // number of the operation under way
  std::atomic<std::uint32_t> done;
  std::atomic<std::uint64_t> last_id;
};

struct Operation {
  enum Kind { open, accept, absorb, take_id } kind;
  std::uint32_t slot;
  std::uint32_t value;  // prompt tokens of an opened slot, accepted total
};

constexpr Operation kScript[] = {
    {Operation::open, 0, 11},   {Operation::accept, 0, 3}, {Operation::open, 1, 20},
    {Operation::take_id, 0, 0}, {Operation::absorb, 0, 0}, {Operation::accept, 1, 1},
    {Operation::open, 0, 7},    {Operation::accept, 1, 5}, {Operation::absorb, 1, 0},
    {Operation::accept, 0, 2},  {Operation::absorb, 0, 0},
};
constexpr auto kOperations = static_cast<std::uint32_t>(std::size(kScript));

void run(Journal& journal, const Operation& operation, std::uint64_t sequence, Stage& stage) {
  switch (operation.kind) {
    case Operation::open: {
      const auto slot = journal.try_open_slot(
          {RequestId(sequence), SequenceId(sequence), TenantId(0), 0, operation.value, 64, 0, {}});
      CHECK(slot == operation.slot);
      return;
    }
    case Operation::accept:
      journal.accept(operation.slot, operation.value);
      return;
    case Operation::absorb:
      journal.absorb(operation.slot);
      return;
    case Operation::take_id:
      stage.last_id.store(journal.take_id());
      return;
  }
}

[[noreturn]] void child(const UniqueFd& fd, Stage& stage) {
  std::vector<Journal::Recovered> recovered;
  Journal journal = *Journal::open(UniqueFd(::dup(fd.get())), recovered);
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  ::raise(SIGSTOP);
  for (std::uint32_t i = 0; i < kOperations; ++i) {
    stage.begun.store(i + 1);
    run(journal, kScript[i], i + 1, stage);
    stage.done.store(i + 1);
  }
  ::_exit(0);
}

// What is billed after the first `count` operations, live slots included.
JournalTotals billed_after(std::uint32_t count) {
  struct Slot {
    bool live;
    std::uint32_t prompt, accepted;
  } slots[kSlots] = {};
  JournalTotals totals;
  for (std::uint32_t i = 0; i < count; ++i) {
    Slot& slot = slots[kScript[i].slot];
    switch (kScript[i].kind) {
      case Operation::open:
        slot = {true, kScript[i].value, 0};
        break;
      case Operation::accept:
        slot.accepted = kScript[i].value;
        break;
      case Operation::absorb:
        totals = test::sum(totals, {1, slot.prompt, slot.accepted});
        slot.live = false;
        break;
      case Operation::take_id:
        break;
    }
  }
  for (const Slot& slot : slots)
    if (slot.live) totals = test::sum(totals, {1, slot.prompt, slot.accepted});
  return totals;
}

void check_killed_here(const test::Image& image, const Stage& stage) {
  std::vector<Journal::Recovered> recovered;
  auto opened = Journal::open(test::file_of(image), recovered);
  ASSERT_TRUE(opened) << opened.error().detail;
  opened->check_invariants();
  EXPECT_EQ(opened->num_live(), 0u) << "a slot leaked";
  const JournalTotals before = billed_after(stage.done.load());
  const JournalTotals after = billed_after(stage.begun.load());
  const JournalTotals totals = opened->totals();
  EXPECT_TRUE(test::equal(totals, before) || test::equal(totals, after))
      << "in operation " << stage.begun.load() << ": requests " << totals.requests << " prompt "
      << totals.prompt << " accepted " << totals.accepted;
  EXPECT_GT(opened->take_id(), stage.last_id.load()) << "an id would be given out twice";
  // Opened once more, nothing is billed again.
  EXPECT_TRUE(test::equal(opened->totals_with_live(), totals));
}

TEST(JournalKill, AtEveryInstructionTheBooksAreRight) {
  const UniqueFd fd = test::fresh_journal(kSlots);
  void* const shared =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto& stage = *new (shared) Stage{};
  const test::Image untouched = test::image_of(fd);
  void* const file = ::mmap(nullptr, untouched.size(), PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(file, MAP_FAILED);

  const pid_t pid = ::fork();
  if (pid == 0) child(fd, stage);
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, WUNTRACED), pid);
  ASSERT_TRUE(WIFSTOPPED(status));
  test::Image last = test::image_of(fd);
  std::size_t num_images = 0;
  bool traced = false;
  while (WIFSTOPPED(status) && !testing::Test::HasFailure()) {
    if (::ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr) != 0) break;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    traced = true;
    if (std::memcmp(file, last.data(), last.size()) == 0) continue;
    last = test::image_of(fd);
    ++num_images;
    check_killed_here(last, stage);
  }
  if (!WIFEXITED(status)) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, &status, 0);
  }
  if (!traced) GTEST_SKIP() << "tracing is not permitted here";
  EXPECT_EQ(stage.done.load(), kOperations);
  EXPECT_GT(num_images, 40u) << "the trace hardly saw a store";
  ::munmap(file, untouched.size());
  ::munmap(shared, 4096);
}

}  // namespace
}  // namespace sluice
