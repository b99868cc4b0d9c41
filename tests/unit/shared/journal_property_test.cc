// The journal against a naive model: random operations, and at random points the file is copied and
// opened as the next gateway would. Totals exact, no slot leaked, no id reused.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/support/journal_image.h"
#include "tests/support/seed.h"

namespace sluice {
namespace {

using test::uniform;

class JournalModel {
 public:
  explicit JournalModel(std::uint64_t seed) : rng_(seed), fd_(test::fresh_journal(kSlots)) {
    reopen();
  }

  void turn() {
    switch (uniform(rng_, 0, 12)) {
      case 0:
      case 1:
      case 2:
        open_slot();
        break;
      case 3:
      case 4:
        absorb();
        break;
      case 5:
        if (uniform(rng_, 0, 20) == 0) crash();
        break;
      case 6:
        take_ids();
        break;
      default:
        accept();
        break;
    }
    check();
  }

 private:
  static constexpr std::uint32_t kSlots = 24;
  struct Live {
    JournalEntry entry;
    std::uint32_t accepted;
  };

  void open_slot() {
    const auto choice = static_cast<std::uint32_t>(uniform(rng_, 0, 2));
    const std::uint64_t id = take_id();
    const JournalEntry entry{RequestId(id),
                             SequenceId(id),
                             TenantId(1),
                             choice,
                             choice == 0 ? static_cast<std::uint32_t>(uniform(rng_, 1, 5000)) : 0,
                             100,
                             id * 3,
                             {}};
    const auto slot = journal_->try_open_slot(entry);
    ASSERT_EQ(slot.has_value(), live_.size() < kSlots);
    if (!slot) return;
    ASSERT_TRUE(live_.emplace(*slot, Live{entry, 0}).second) << "a live slot was given out";
  }
  void accept() {
    if (live_.empty()) return;
    auto& [slot, live] =
        *std::next(live_.begin(), static_cast<long>(uniform(rng_, 0, live_.size() - 1)));
    live.accepted += static_cast<std::uint32_t>(uniform(rng_, 0, 9));
    journal_->accept(slot, live.accepted);
    ASSERT_EQ(journal_->accepted(slot), live.accepted);
  }
  void absorb() {
    if (live_.empty()) return;
    const auto at = std::next(live_.begin(), static_cast<long>(uniform(rng_, 0, live_.size() - 1)));
    journal_->absorb(at->first);
    totals_ = test::sum(totals_, billed(at->second));
    live_.erase(at);
  }
  void take_ids() {
    for (std::uint64_t n = uniform(rng_, 0, 3000); n > 0; --n) take_id();
  }
  std::uint64_t take_id() {
    const std::uint64_t id = journal_->take_id();
    EXPECT_GT(id, last_id_) << "an id was given out twice";
    last_id_ = id;
    return id;
  }
  // The process is gone; only the file is left.
  void crash() {
    journal_.reset();
    std::map<std::uint64_t, Live> expected;
    for (const auto& [slot, live] : live_) expected[live.entry.sequence.value] = live;
    const auto recovered = reopen();
    ASSERT_EQ(recovered.size(), expected.size());
    for (const auto& found : recovered) {
      const Live& live = expected.at(found.entry.sequence.value);
      EXPECT_EQ(found.accepted, live.accepted);
      EXPECT_EQ(found.entry.prompt_tokens, live.entry.prompt_tokens);
      EXPECT_EQ(found.entry.admitted_unix_ms, live.entry.admitted_unix_ms);
      totals_ = test::sum(totals_, billed(live));
    }
    live_.clear();
  }
  std::vector<Journal::Recovered> reopen() {
    std::vector<Journal::Recovered> recovered;
    const test::Image image = test::image_of(fd_);
    fd_ = test::file_of(image);
    journal_.emplace(*Journal::open(UniqueFd(::dup(fd_.get())), recovered));
    EXPECT_EQ(journal_->gateway_epoch(), Epoch(++epoch_));
    return recovered;
  }
  void check() {
    journal_->check_invariants();
    JournalTotals all = totals_;
    for (const auto& [slot, live] : live_) all = test::sum(all, billed(live));
    ASSERT_TRUE(test::equal(journal_->totals(), totals_));
    ASSERT_TRUE(test::equal(journal_->totals_with_live(), all));
    ASSERT_EQ(journal_->num_live(), live_.size());
  }
  static JournalTotals billed(const Live& live) {
    return {live.entry.choice == 0 ? 1u : 0u, live.entry.prompt_tokens, live.accepted};
  }

  std::mt19937_64 rng_;
  UniqueFd fd_;
  std::optional<Journal> journal_;
  std::map<std::uint32_t, Live> live_;
  JournalTotals totals_;
  std::uint64_t last_id_ = 0;
  std::uint64_t epoch_ = 0;
};

TEST(JournalProperty, AgreesWithANaiveModelThroughCrashes) {
  const std::uint64_t base = test::test_seed(1);
  for (std::uint64_t seed = base; seed < base + 20; ++seed) {
    SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
    JournalModel model(seed);
    for (int i = 0; i < 3000; ++i) {
      model.turn();
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace sluice
