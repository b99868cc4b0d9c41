// The journal file: creation, growth, refusal of foreign and damaged files, a disk without room.
#include "shared/journal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/support/journal_image.h"

namespace sluice {
namespace {

using test::Image;

class JournalFile : public testing::Test {
 protected:
  JournalFile() {
    std::string pattern = testing::TempDir() + "sluice-journal-dir-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    path_ = directory_ + "/journal";
  }
  ~JournalFile() override {
    ::unlink(path_.c_str());
    ::rmdir(directory_.c_str());
  }
  void write_file(const Image& image) {
    UniqueFd fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600));
    ASSERT_EQ(::write(fd.get(), image.data(), image.size()), static_cast<ssize_t>(image.size()));
  }
  std::string directory_, path_;
};

JournalEntry entry(std::uint64_t id, std::uint32_t choice, std::uint32_t prompt_tokens) {
  return {RequestId(id), SequenceId(id), TenantId(2), choice, prompt_tokens, 100, 1234, {}};
}

TEST_F(JournalFile, KeepsTotalsSlotsAndIdsOverReopening) {
  std::vector<Journal::Recovered> recovered;
  std::uint64_t last_id = 0;
  {
    Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 4), recovered);
    EXPECT_EQ(journal.gateway_epoch(), Epoch(1));
    last_id = journal.take_id();
    EXPECT_NE(last_id, 0u);
    const auto done = *journal.try_open_slot(entry(last_id, 0, 10));
    journal.accept(done, 7);
    journal.absorb(done);
    JournalEntry live = entry(last_id + 1, 0, 20);
    live.tenant_key[31] = 9;
    const auto slot = *journal.try_open_slot(live);
    journal.accept(slot, 3);
    EXPECT_EQ(journal.num_live(), 1u);
    EXPECT_EQ(journal.totals().accepted, 7u);
    EXPECT_EQ(journal.totals_with_live().accepted, 10u);
    EXPECT_EQ(journal.totals_with_live().prompt, 30u);
  }
  Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 4), recovered);
  ASSERT_EQ(recovered.size(), 1u);
  EXPECT_EQ(recovered[0].entry.sequence, SequenceId(last_id + 1));
  EXPECT_EQ(recovered[0].entry.tenant_key[31], 9);
  EXPECT_EQ(recovered[0].accepted, 3u);
  EXPECT_EQ(journal.gateway_epoch(), Epoch(2));
  EXPECT_EQ(journal.num_live(), 0u);
  EXPECT_TRUE(test::equal(journal.totals(), {2, 30, 10}));
  EXPECT_GT(journal.take_id(), last_id);
  journal.check_invariants();
}

TEST_F(JournalFile, WhatIsKeptStaysLiveUntilItIsAbsorbed) {
  std::vector<Journal::Recovered> recovered;
  {
    Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 4), recovered);
    JournalEntry live = entry(5, 0, 20);
    live.model_key = 77;
    live.price_input = 3;
    live.price_cached = 1;
    live.price_output = 5;
    const auto slot = *journal.try_open_slot(live);
    journal.set_cached(slot, 16);
    journal.set_use(slot, {123'456'789'000, 4'000'000'000});
    journal.accept(slot, 3);
  }
  for (int round = 0; round < 2; ++round) {  // the first reader dies before it absorbs
    recovered.clear();
    Journal journal = *Journal::open_keeping(*Journal::create_file(path_.c_str(), 4), recovered);
    ASSERT_EQ(recovered.size(), 1u);
    EXPECT_FALSE(journal.is_power_lost());
    EXPECT_EQ(journal.num_live(), 1u);
    EXPECT_EQ(recovered[0].cached, 16u);
    EXPECT_EQ(recovered[0].use.kv_token_ms, 123'456'789'000u);
    EXPECT_EQ(recovered[0].use.device_ms, 4'000'000'000u);
    EXPECT_EQ(recovered[0].entry.model_key, 77u);
    EXPECT_EQ(recovered[0].entry.price_input, 3u);
    EXPECT_EQ(recovered[0].entry.price_cached, 1u);
    EXPECT_EQ(recovered[0].entry.price_output, 5u);
    if (round == 1) journal.absorb(recovered[0].slot);
  }
  recovered.clear();
  const Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 4), recovered);
  EXPECT_TRUE(recovered.empty());
  EXPECT_TRUE(test::equal(journal.totals(), {1, 20, 3}));
}

TEST_F(JournalFile, SlotsAreBoundedAndReused) {
  std::vector<Journal::Recovered> recovered;
  Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 3), recovered);
  for (std::uint64_t i = 1; i <= 3; ++i) ASSERT_TRUE(journal.try_open_slot(entry(i, 0, 1)));
  EXPECT_FALSE(journal.try_open_slot(entry(4, 0, 1)));
  journal.absorb(1);
  EXPECT_EQ(journal.try_open_slot(entry(5, 0, 1)), 1u);
}

TEST_F(JournalFile, ChoicesBillTheirPromptOnce) {
  std::vector<Journal::Recovered> recovered;
  Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 3), recovered);
  const auto first = *journal.try_open_slot(entry(1, 0, 50));
  const auto second = *journal.try_open_slot(entry(2, 1, 0));
  journal.accept(first, 4);
  journal.accept(second, 6);
  journal.absorb(second);
  journal.absorb(first);
  EXPECT_TRUE(test::equal(journal.totals(), {1, 50, 10}));
}

TEST_F(JournalFile, GrowsWithItsLiveSlotsAndNeverShrinks) {
  std::vector<Journal::Recovered> recovered;
  {
    Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 2), recovered);
    ASSERT_TRUE(journal.try_open_slot(entry(1, 0, 5)));
  }
  {
    Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 8), recovered);
    EXPECT_EQ(journal.num_slots(), 8u);
    EXPECT_EQ(recovered.size(), 1u);
    EXPECT_EQ(journal.totals().prompt, 5u);
  }
  Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 1), recovered);
  EXPECT_EQ(journal.num_slots(), 8u);
}

TEST_F(JournalFile, AnotherBootSkipsIds) {
  std::vector<Journal::Recovered> recovered;
  std::uint64_t id = 0;
  {
    Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 2), recovered);
    id = journal.take_id();
  }
  {
    UniqueFd fd(::open(path_.c_str(), O_RDWR));
    const char other_boot = 77;
    ASSERT_EQ(::pwrite(fd.get(), &other_boot, 1, offsetof(JournalHeader, boot_id)), 1);
  }
  Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 2), recovered);
  EXPECT_GE(journal.take_id(), id + kJournalIdsSkipped);
}

TEST_F(JournalFile, AFileWhoseCreationWasCutShortIsMadeAnew) {
  write_file(Image(100, '\0'));
  std::vector<Journal::Recovered> recovered;
  EXPECT_TRUE(Journal::open(*Journal::create_file(path_.c_str(), 2), recovered));
}

TEST_F(JournalFile, AFileOfAFormerVersionGoesOn) {
  for (const std::uint32_t version : {1u, 2u}) {
    ::unlink(path_.c_str());
    std::vector<Journal::Recovered> recovered;
    {
      Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 2), recovered);
      const auto done = *journal.try_open_slot(entry(1, 0, 10));
      journal.accept(done, 7);
      journal.absorb(done);
      journal.accept(*journal.try_open_slot(entry(2, 0, 5)), 3);
    }
    Image former = test::image_of(UniqueFd(::open(path_.c_str(), O_RDONLY)));
    std::memcpy(former.data() + offsetof(JournalHeader, version), &version, sizeof version);
    write_file(former);
    EXPECT_FALSE(Journal::open(test::file_of(former), recovered));  // the parent's to convert
    const auto journal = Journal::open_keeping(*Journal::create_file(path_.c_str(), 4), recovered);
    ASSERT_TRUE(journal);
    ASSERT_EQ(recovered.size(), 1u);
    EXPECT_EQ(recovered[0].accepted, 3u);
    EXPECT_EQ(recovered[0].cached, 0u);
    EXPECT_EQ(recovered[0].entry.model_key, 0u);
    EXPECT_EQ(recovered[0].entry.prompt_tokens, 5u);
    EXPECT_EQ(journal->totals().requests, 1u);
    EXPECT_EQ(journal->num_slots(), 4u);
  }
}

TEST_F(JournalFile, ForeignFilesAreRefusedAndLeftAlone) {
  const Image foreign(8192, 'q');
  write_file(foreign);
  EXPECT_EQ(Journal::create_file(path_.c_str(), 2).error().code, Errc::bad_file);
  EXPECT_EQ(test::image_of(UniqueFd(::open(path_.c_str(), O_RDONLY))), foreign);
  EXPECT_EQ(Journal::create_file(directory_.c_str(), 2).error().code, Errc::io_error);
  EXPECT_EQ(Journal::create_file("/nonexistent/journal", 2).error().code, Errc::io_error);
}

TEST_F(JournalFile, DamagedFilesAreRefused) {
  std::vector<Journal::Recovered> recovered;
  {
    Journal journal = *Journal::open(*Journal::create_file(path_.c_str(), 2), recovered);
    ASSERT_TRUE(journal.try_open_slot(entry(1, 0, 5)));
  }
  const Image good = test::image_of(UniqueFd(::open(path_.c_str(), O_RDONLY)));
  const auto refused = [&](std::size_t offset, std::uint32_t value) {
    Image bad = good;
    std::memcpy(bad.data() + offset, &value, sizeof value);
    const auto opened = Journal::open(test::file_of(bad), recovered);
    ASSERT_FALSE(opened) << offset;
    EXPECT_EQ(opened.error().code, Errc::bad_file);
  };
  // The free slots are handed out from the lowest number: slot 0 is the live one.
  constexpr std::size_t kSlot = kJournalHeaderBytes;
  refused(offsetof(JournalHeader, magic), 1);
  refused(offsetof(JournalHeader, version), kJournalVersion + 1);
  refused(offsetof(JournalHeader, num_slots), 0);
  refused(offsetof(JournalHeader, num_slots), 3);
  refused(offsetof(JournalHeader, num_slots), 0xffffffff);
  refused(offsetof(JournalHeader, intent_state), 2);
  refused(kSlot + offsetof(JournalSlot, state), 2);
  refused(kSlot + offsetof(JournalSlot, prompt_tokens), 0xffffffff);
  refused(kSlot + offsetof(JournalSlot, accepted), 0xffffffff);
  refused(kSlot + offsetof(JournalSlot, cached), 0xffffffff);
  Image bad_intent = good;
  const std::uint32_t one = 1;
  const std::uint32_t absurd = 1000;
  std::memcpy(bad_intent.data() + offsetof(JournalHeader, intent_state), &one, 4);
  std::memcpy(bad_intent.data() + offsetof(JournalHeader, intent_slot), &absurd, 4);
  EXPECT_FALSE(Journal::open(test::file_of(bad_intent), recovered));
  EXPECT_FALSE(Journal::open(test::file_of(Image(good.begin(), good.begin() + 4100)), recovered));
  EXPECT_TRUE(Journal::open(test::file_of(good), recovered));
}

// In a child, because the limit and the mount belong to the whole process.
int create_under_file_limit(const char* path) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{8192, 8192};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(3);
    const auto fd = Journal::create_file(path, 16384);
    if (fd) ::_exit(1);
    const bool says_so = fd.error().detail.find("disk full") != std::string::npos;
    ::_exit(fd.error().code == Errc::io_error && says_so ? 0 : 2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(JournalFile, AFileLimitIsToldAsAFullDisk) {
  EXPECT_EQ(create_under_file_limit(path_.c_str()), 0);
}

TEST_F(JournalFile, AFullDiskIsToldAndLeavesNoHalfJournal) {
  if (::mount("none", directory_.c_str(), "tmpfs", 0, "size=64k") != 0)
    GTEST_SKIP() << "mount is not permitted here; the file limit test covers the path";
  const auto fd = Journal::create_file(path_.c_str(), 16384);
  EXPECT_FALSE(fd);
  if (!fd) {
    EXPECT_EQ(fd.error().code, Errc::io_error);
    EXPECT_NE(fd.error().detail.find("disk full"), std::string::npos) << fd.error().detail;
  }
  std::vector<Journal::Recovered> recovered;
  EXPECT_TRUE(Journal::open(*Journal::create_file(path_.c_str(), 16), recovered))
      << "a smaller one fits, whatever the failed attempt left";
  ASSERT_EQ(::umount2(directory_.c_str(), MNT_DETACH), 0);
}

}  // namespace
}  // namespace sluice
