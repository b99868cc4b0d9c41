// Restarts: journal to book to ledger. A process "dies" by closing all without saying goodbye; the
// books of the next one must equal plain sums of what was accepted, wherever it died.
#include "gateway/store/usage_recovery.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>

namespace sluice::gw {
namespace {

constexpr std::int64_t kNoon = 1'700'049'600;  // 2023-11-15 12:00:00 UTC
constexpr AccountId kTenant{0}, kKey{1};

class Restarts : public ::testing::Test {
 protected:
  Restarts() {
    std::string name = std::filesystem::temp_directory_path() / "sluice-restarts-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    names_.accounts = {{account_digest("blue", ""), kTenant}, {account_digest("blue", "k"), kKey}};
    names_.tenants = {{"blue", kTenant}};
    names_.models = {{model_digest("brook"), 0}};
  }
  ~Restarts() override { std::filesystem::remove_all(folder_); }

  std::string journal_path() const { return folder_ + "/journal"; }
  UsageBook open_book() { return std::move(*UsageBook::open(folder_ + "/store.db")); }
  Journal open_journal(std::vector<Journal::Recovered>& left) {
    left.clear();
    Journal journal =
        std::move(*Journal::open_keeping(*Journal::create_file(journal_path().c_str(), 64), left));
    if (journal.gateway_epoch() == Epoch(1)) journal.confirm_boot();
    return journal;
  }
  static JournalEntry entry(std::uint64_t id, std::uint32_t prompt, std::uint32_t output_max,
                            std::int64_t unix_s) {
    JournalEntry made{};
    made.request = RequestId(id);
    made.sequence = SequenceId(id);
    made.prompt_tokens = prompt;
    made.reserved_tokens = prompt + output_max;
    made.admitted_unix_ms = static_cast<std::uint64_t>(unix_s) * 1000;
    made.tenant_key = account_digest("blue", "k");
    made.model_key = model_digest("brook");
    made.price_input = 2;
    made.price_output = 3;
    return made;
  }
  // A ledger of a new process, charged from the book.
  Ledger charged(UsageBook& book, std::int64_t now_unix_s, Tick now) {
    Ledger ledger({1, 16});
    AccountSpec key;
    key.parent = kTenant;
    EXPECT_TRUE(ledger.set_account(kTenant, {}));
    EXPECT_TRUE(ledger.set_account(kKey, key));
    ledger.set_wall(now, now_unix_s * 1000);
    const auto charges = ledger_charges(book, names_, now_unix_s);
    EXPECT_TRUE(charges);
    for (const Ledger::SettledCharge& charge : *charges)
      EXPECT_TRUE(ledger.charge_settled(charge, now));
    ledger.check_invariants();
    return ledger;
  }
  std::string folder_;
  LedgerNames names_;
};

TEST_F(Restarts, ALedgerGoesOnWhereTheDeadOneWas) {
  std::vector<Journal::Recovered> left;
  {
    Journal journal = open_journal(left);
    const auto slot = *journal.try_open_slot(entry(journal.take_id(), 10, 50, kNoon));
    journal.accept(slot, 7);
  }
  UsageBook book = open_book();
  const AccountName name{account_digest("blue", "k"), "blue", "k"};
  ASSERT_TRUE(book.name_accounts(std::span(&name, 1)));
  Journal journal = open_journal(left);
  const auto recovery = recover_usage(book, journal, left, kNoon + 5);
  ASSERT_TRUE(recovery);
  EXPECT_EQ(recovery->slots, 1u);
  EXPECT_EQ(recovery->output, 7u);
  EXPECT_EQ(journal.num_live(), 0u);
  const Tick now{std::chrono::seconds(3)};
  Ledger ledger = charged(book, kNoon + 5, now);
  for (const AccountId account : {kTenant, kKey}) {
    EXPECT_EQ(ledger.used(account, LimitKind::requests_per_minute, now), 1u);
    EXPECT_EQ(ledger.used(account, LimitKind::tokens_per_minute, now), 17u);
    EXPECT_EQ(ledger.used(account, LimitKind::output_tokens_per_minute, now), 7u);
    EXPECT_EQ(ledger.used(account, LimitKind::tokens_per_day, now), 17u);
    EXPECT_EQ(ledger.used(account, LimitKind::monthly_budget, now), 10u * 2 + 7 * 3);
  }
  EXPECT_EQ(ledger.num_open(), 0u);
  // The charges are as old as the admission, not as the restart.
  const Tick later = now + std::chrono::seconds(57);
  EXPECT_EQ(ledger.used(kTenant, LimitKind::tokens_per_minute, later), 0u);

  names_.accounts.erase(account_digest("blue", "k"));  // the key is gone: its tenant has it
  Ledger without = charged(book, kNoon + 5, now);
  EXPECT_EQ(without.used(kTenant, LimitKind::tokens_per_day, now), 17u);
  EXPECT_EQ(without.used(kKey, LimitKind::tokens_per_day, now), 0u);
  names_.tenants.clear();
  EXPECT_EQ(charged(book, kNoon + 5, now).used(kTenant, LimitKind::tokens_per_day, now), 0u);
}

TEST_F(Restarts, APowerLossChargesAllThatWasReserved) {
  std::vector<Journal::Recovered> left;
  {
    Journal journal = open_journal(left);
    const auto slot = *journal.try_open_slot(entry(journal.take_id(), 10, 50, kNoon));
    journal.accept(slot, 7);
  }
  {
    const UniqueFd fd(::open(journal_path().c_str(), O_WRONLY | O_CLOEXEC));
    const std::uint8_t other_boot[16] = {1};
    ASSERT_EQ(::pwrite(fd.get(), other_boot, sizeof other_boot, offsetof(JournalHeader, boot_id)),
              static_cast<ssize_t>(sizeof other_boot));
  }
  UsageBook book = open_book();
  // One that dies before it has stored what was left changes nothing.
  EXPECT_TRUE(open_journal(left).is_power_lost());
  Journal journal = open_journal(left);
  ASSERT_TRUE(journal.is_power_lost());
  EXPECT_EQ(recover_usage(book, journal, left, kNoon)->output, 50u);
  EXPECT_FALSE(open_journal(left).is_power_lost());
  const Tick now{};
  EXPECT_EQ(charged(book, kNoon, now).used(kTenant, LimitKind::tokens_per_day, now), 60u);
}

// Random requests; the process dies anywhere between accepting, storing and freeing, also during
// the recovery itself.
TEST_F(Restarts, PropertyDeathAnywhereKeepsTheSums) {
  const char* const given = std::getenv("TEST_SEED");
  const unsigned seed = given != nullptr ? static_cast<unsigned>(std::atoi(given)) : 41u;
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  std::uint64_t requests = 0, tokens = 0, cost = 0;
  std::int64_t now_s = kNoon;
  for (int life = 0; life < 40; ++life) {
    std::vector<Journal::Recovered> left;
    UsageBook book = open_book();
    Journal journal = open_journal(left);
    if (below(4) == 0) {  // dies after the book was written, before a slot was freed
      std::vector<UsageEntry> entries;
      for (const Journal::Recovered& slot : left) entries.push_back(usage_of(slot));
      ASSERT_TRUE(book.add(entries, now_s));
      continue;
    }
    ASSERT_TRUE(recover_usage(book, journal, left, now_s));
    const Tick now{std::chrono::seconds(life)};
    Ledger ledger = charged(book, now_s, now);
    ASSERT_EQ(ledger.used(kTenant, LimitKind::requests_per_minute, now), requests);
    ASSERT_EQ(ledger.used(kKey, LimitKind::tokens_per_minute, now), tokens);
    ASSERT_EQ(ledger.used(kTenant, LimitKind::tokens_per_day, now), tokens);
    ASSERT_EQ(ledger.used(kKey, LimitKind::monthly_budget, now), cost);
    std::vector<std::uint32_t> settled;
    for (std::uint32_t i = below(12); i > 0; --i) {
      const std::uint32_t prompt = below(100), output = below(100);
      const auto slot = *journal.try_open_slot(entry(journal.take_id(), prompt, 100, now_s));
      journal.accept(slot, output);
      ++requests;
      tokens += prompt + output;
      cost += 2 * prompt + 3 * output;
      if (below(2) == 0) settled.push_back(slot);
    }
    std::vector<UsageEntry> batch;
    for (const std::uint32_t slot : settled) batch.push_back(usage_of(journal.read(slot)));
    if (below(3) == 0) continue;
    ASSERT_TRUE(book.add(batch, now_s));
    for (const std::uint32_t slot : settled) {
      if (below(4) == 0) break;
      journal.absorb(slot);
    }
    now_s += life % 2;
  }
}

}  // namespace
}  // namespace sluice::gw
