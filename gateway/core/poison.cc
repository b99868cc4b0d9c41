// PoisonLedger: groups that halve.
#include "gateway/core/poison.h"

#include <algorithm>

#include "shared/check.h"

namespace sluice::gw {

const PoisonLedger::Member* PoisonLedger::find(RequestId request) const {
  for (const Group& group : groups_) {
    for (const Member& member : group.members) {
      if (member.id == request) return &member;
    }
  }
  return nullptr;
}

bool PoisonLedger::is_suspect(RequestId request) const {
  return find(request) != nullptr;
}

bool PoisonLedger::may_run(RequestId request) const {
  const Member* member = find(request);
  return member == nullptr || member->on_trial;
}

std::size_t PoisonLedger::num_suspects() const {
  std::size_t count = 0;
  for (const Group& group : groups_) count += group.members.size();
  return count;
}

void PoisonLedger::start_trial() {
  Group* nearest = nullptr;
  for (Group& group : groups_) {
    for (const Member& member : group.members) {
      if (member.on_trial) return;
    }
    if (nearest == nullptr || group.crashes > nearest->crashes) nearest = &group;
  }
  if (nearest == nullptr) return;
  const std::size_t half = (nearest->members.size() + 1) / 2;
  for (std::size_t i = 0; i < half; ++i) nearest->members[i].on_trial = true;
}

void PoisonLedger::cleared(RequestId request) {
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    auto& members = groups_[i].members;
    const auto member = std::find_if(members.begin(), members.end(),
                                     [&](const Member& m) { return m.id == request; });
    if (member == members.end()) continue;
    members.erase(member);
    if (members.empty()) groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(i));
    start_trial();
    return;
  }
}

void PoisonLedger::crashed(std::span<const RequestId> suspects, std::vector<RequestId>& condemned) {
  if (suspects.empty()) return;
  if (suspects.size() == 1) {  // alone in the crashed step
    cleared(suspects[0]);
    condemned.push_back(suspects[0]);
    return;
  }
  // Out of each group those of this crash, who share one crash more; and those who were in none.
  std::vector<Group> shares;
  Group fresh{{}, 1};
  for (const RequestId id : suspects) {
    if (!is_suspect(id)) fresh.members.push_back(Member{id, false});
  }
  const auto in_crash = [&](const Member& member) {
    return std::find(suspects.begin(), suspects.end(), member.id) != suspects.end();
  };
  for (Group& group : groups_) {
    Group share{{}, group.crashes + 1};
    for (const Member& member : group.members) {
      if (in_crash(member)) share.members.push_back(Member{member.id, false});
    }
    if (share.members.empty()) continue;
    std::erase_if(group.members, in_crash);
    shares.push_back(std::move(share));
  }
  std::erase_if(groups_, [](const Group& group) { return group.members.empty(); });
  // Members of several groups in one crash: it says nothing about any of them alone.
  const bool is_verdict =
      shares.size() == 1 && shares[0].members.size() == 1 && shares[0].crashes >= kCrashesToCondemn;
  if (shares.size() > 1) {
    for (Group& share : shares) --share.crashes;
  }
  if (is_verdict) {
    condemned.push_back(shares[0].members[0].id);
    shares.clear();
  }
  if (!fresh.members.empty()) shares.push_back(std::move(fresh));
  for (Group& share : shares) {
    std::sort(share.members.begin(), share.members.end(),
              [](const Member& a, const Member& b) { return a.id < b.id; });
    groups_.push_back(std::move(share));
  }
  start_trial();
}

void PoisonLedger::check_invariants() const {
  std::vector<RequestId> seen;
  std::size_t on_trial = 0;
  for (const Group& group : groups_) {
    CHECK(!group.members.empty());
    for (const Member& member : group.members) {
      seen.push_back(member.id);
      on_trial += member.on_trial ? 1 : 0;
    }
  }
  CHECK((on_trial > 0) == !seen.empty());
  std::sort(seen.begin(), seen.end());
  CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
}

}  // namespace sluice::gw
