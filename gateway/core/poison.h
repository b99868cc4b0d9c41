// PoisonLedger: finds the request that kills workers, at the least cost to the innocent.
//
// A crash with evidence names suspects: the requests whose sequences were in the step during which
// it happened (choices of one request share the prompt, so they are one suspect). They form a
// group. Half of it goes on trial (runs again, among innocents), everybody else is held; who
// delivers a token has repeated what crashed and is cleared; when a whole trial is cleared the next
// one starts. Those of a crash become a group of their own, which has one crash more than the one
// that they came from: the intersection of all these. Nobody is free before it has delivered, and
// one trial runs at a time: a second culprit is held while the first is tried, and cannot crash
// beside an innocent again.
//
//   crash {a b c d e*}  ->  trial {a b c}, held {d e}   cleared: a b c
//                       ->  trial {d}, held {e}         cleared: d
//                       ->  trial {e}                   crash {e x y}: intersection {e}, 2 crashes
//                       ->  trial {e}, held {x y}       crash {e z}: third crash, condemned
//                       ->  trial {z}, then {x}, {y}    cleared: all
//
// Condemned: it was the only one of a crashed step, or it is alone in the intersection of three
// crashes. A kill from outside is no evidence: the caller does not report it. What remains:
// culprits that have never crashed before and meet the same suspect in its first step, one after
// another. Invariants: 1. a suspect is in exactly one group; 2. a trial of a group of two or more
// starts with at most half of it; 3. while there are suspects, somebody is on trial. Pure; decision
// thread only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shared/ids.h"

namespace sluice::gw {

class PoisonLedger {
 public:
  static constexpr std::uint32_t kCrashesToCondemn = 3;

  // `suspects`: distinct requests of the crashed step. Appends those now condemned, which leave the
  // ledger.
  void crashed(std::span<const RequestId> suspects, std::vector<RequestId>& condemned);
  // It delivered a token after its resubmission, or ended: no longer a suspect.
  void cleared(RequestId request);

  bool is_suspect(RequestId request) const;
  bool may_run(RequestId request) const;  // true for everybody who is not held
  std::size_t num_suspects() const;
  void check_invariants() const;

 private:
  struct Member {
    RequestId id;
    bool on_trial;
  };
  struct Group {
    std::vector<Member> members;  // ascending by id
    std::uint32_t crashes;        // that all members share
  };
  const Member* find(RequestId request) const;
  void start_trial();  // when nobody is on trial: half of the group nearest to a verdict

  std::vector<Group> groups_;  // small: bounded by suspects of live requests
};

}  // namespace sluice::gw
