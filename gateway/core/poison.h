// PoisonLedger: finds the request that kills workers, at the least cost to the innocent.
//
// A crash with evidence names suspects: the requests whose sequences were in the step during which
// it happened (choices of one request share the prompt, so they are one suspect). They form a
// group. Half of it goes on trial (runs again, among innocents), the rest is held; who delivers a
// token has repeated what crashed and is cleared; when a whole trial is cleared the next half
// starts. When a trial crashes, those of the crash that were on trial stay suspects, everybody else
// is free. That finds one culprit at a time; of two at once an innocent may share three crashes by
// coincidence.
//
//   crash {a b c d e*}  ->  trial {a b c}, held {d e}   cleared: a b c
//                       ->  trial {d}, held {e}         cleared: d
//                       ->  trial {e}                   crash {e x y}: intersection {e}, 2 crashes
//                       ->  trial {e}                   crash {e z}: third crash, condemned
//
// Condemned: it was the only one of a crashed step, or it is alone in the intersection of three
// crashes. A kill from outside is no evidence: the caller does not report it.
// Invariants: 1. a suspect is in exactly one group; 2. a trial of a group of two or more starts
// with at most half of it; 3. every group has at least one member on trial. Pure; decision thread
// only.
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
  static void start_trial(Group& group);  // when nobody is on trial: the first half

  std::vector<Group> groups_;  // small: bounded by suspects of live requests
};

}  // namespace sluice::gw
