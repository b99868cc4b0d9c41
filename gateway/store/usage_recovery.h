// What a gateway does with the books of the one before it, before it listens: the slots that a dead
// gateway left live go into the usage book, and the book charges the ledger of this process.
//
// Order: an entry is durable before its slot is freed, and the book counts it once; so a kill
// between any two steps, any number of times, changes no sum.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "gateway/core/ledger.h"
#include "gateway/store/usage_book.h"
#include "shared/journal.h"

namespace sluice::gw {

struct UsageRecovery {
  std::uint64_t slots = 0;
  std::uint64_t output = 0;  // tokens that they were charged with
};
// `left`: what open_keeping() of this journal reported. After a power loss each slot is charged
// with all that was reserved, for what the kernel had not written is unknown. Errors as of
// UsageBook::add; then every slot is still live.
Result<UsageRecovery> recover_usage(UsageBook& book, Journal& journal,
                                    std::span<const Journal::Recovered> left,
                                    std::int64_t now_unix_s);

struct LedgerNames {  // of this process
  std::map<AccountDigest, AccountId> accounts;
  std::map<std::string, AccountId, std::less<>> tenants;  // their own accounts
  std::map<std::uint64_t, std::uint32_t> models;          // by model_digest()
};
// The last minute, this day and this month (and any later, should the clock have gone back), for
// Ledger::charge_settled(). What a key used that is gone counts for its tenant; what nobody is
// named for, for nobody.
Result<std::vector<Ledger::SettledCharge>> ledger_charges(UsageBook& book, const LedgerNames& names,
                                                          std::int64_t now_unix_s);

}  // namespace sluice::gw
