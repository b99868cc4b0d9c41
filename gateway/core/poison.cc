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

void PoisonLedger::start_trial(Group& group) {
  for (const Member& member : group.members) {
    if (member.on_trial) return;
  }
  const std::size_t half = (group.members.size() + 1) / 2;
  for (std::size_t i = 0; i < half; ++i) group.members[i].on_trial = true;
}

void PoisonLedger::cleared(RequestId request) {
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    auto& members = groups_[i].members;
    const auto member = std::find_if(members.begin(), members.end(),
                                     [&](const Member& m) { return m.id == request; });
    if (member == members.end()) continue;
    members.erase(member);
    if (members.empty()) {
      groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      start_trial(groups_[i]);
    }
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
  const auto in_crash = [&](const Member& member) {
    return std::find(suspects.begin(), suspects.end(), member.id) != suspects.end();
  };
  bool explained = false;
  for (std::size_t i = 0; i < groups_.size();) {
    Group& group = groups_[i];
    if (std::none_of(group.members.begin(), group.members.end(), in_crash)) {
      ++i;
      continue;
    }
    explained = true;
    std::erase_if(group.members, [&](const Member& member) { return !in_crash(member); });
    ++group.crashes;
    if (group.members.size() == 1 && group.crashes >= kCrashesToCondemn) {
      condemned.push_back(group.members[0].id);
      groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    for (Member& member : group.members) member.on_trial = false;
    start_trial(group);
    ++i;
  }
  if (explained) return;
  Group group{{}, 1};
  for (const RequestId id : suspects) group.members.push_back(Member{id, false});
  std::sort(group.members.begin(), group.members.end(),
            [](const Member& a, const Member& b) { return a.id < b.id; });
  start_trial(group);
  groups_.push_back(std::move(group));
}

void PoisonLedger::check_invariants() const {
  std::vector<RequestId> seen;
  for (const Group& group : groups_) {
    CHECK(!group.members.empty());
    std::size_t on_trial = 0;
    for (const Member& member : group.members) {
      seen.push_back(member.id);
      on_trial += member.on_trial ? 1 : 0;
    }
    CHECK(on_trial > 0);
  }
  std::sort(seen.begin(), seen.end());
  CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
}

}  // namespace sluice::gw
