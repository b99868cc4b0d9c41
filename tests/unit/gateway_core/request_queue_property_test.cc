// RequestQueue against a naive list that is sorted by the four rules of the header on every
// question, and the properties that the rules are for: shares, fairness, no starvation.
#include "gateway/core/request_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "shared/random.h"

namespace sluice::gw {
namespace {

QueueItem item(std::uint64_t id, std::uint32_t tenant, std::uint32_t prompt, Tick arrival,
               std::uint32_t priority = 0) {
  QueueItem made;
  made.id = SequenceId{id};
  made.index = static_cast<std::uint32_t>(id);
  made.tenant = TenantId{tenant};
  made.prompt_tokens = prompt;
  made.tokens = prompt + 100;
  made.requests = 1;
  made.priority = priority;
  made.arrival = arrival;
  return made;
}

// The same rules, written as one comparison over everything that waits.
class NaiveQueue {
 public:
  NaiveQueue(const QueueParams& params, std::size_t tenants)
      : params_(params), served_(tenants), weight_(tenants, 1) {}
  void set_weight(TenantId tenant, std::uint64_t weight) { weight_[tenant.value] = weight; }

  void push(const QueueItem& pushed) {
    const auto size = static_cast<std::size_t>(size_class(pushed.prompt_tokens));
    const auto same_tenant = [&](const QueueItem& other) { return other.tenant == pushed.tenant; };
    if (std::none_of(items_.begin(), items_.end(), same_tenant)) {
      std::uint64_t least = floor_;
      bool first = true;
      for (const QueueItem& other : items_) {
        const std::uint64_t served = served_[other.tenant.value];
        least = first ? served : std::min(least, served);
        first = false;
      }
      std::uint64_t& own = served_[pushed.tenant.value];
      own = std::max(own, least);
    }
    std::optional<std::size_t> behind;
    bool present = false;
    for (std::size_t other = 0; other < kSizeClasses; ++other) {
      const bool waits = std::any_of(items_.begin(), items_.end(), [&](const QueueItem& i) {
        return static_cast<std::size_t>(size_class(i.prompt_tokens)) == other;
      });
      if (waits && other == size) present = true;
      if (waits && other != size && (!behind || is_behind(other, *behind))) behind = other;
    }
    if (!present && behind && is_behind(size, *behind)) {
      work_[size] = work_[*behind] * params_.shares[size] / params_.shares[*behind];
    }
    items_.push_back(pushed);
  }

  const QueueItem* next(Tick now) const {
    const QueueItem* best = nullptr;
    for (const QueueItem& candidate : items_) {
      if (best == nullptr || is_before(candidate, *best, now)) best = &candidate;
    }
    return best;
  }
  void remove(SequenceId id) {
    std::erase_if(items_, [&](const QueueItem& other) { return other.id == id; });
  }
  void charge(TenantId tenant, SizeClass size, std::uint64_t tokens) {
    floor_ = served_[tenant.value] += tokens * 1'000'000 / weight_[tenant.value];
    work_[static_cast<std::size_t>(size)] += tokens;
  }
  const std::vector<QueueItem>& items() const { return items_; }

 private:
  bool is_behind(std::size_t a, std::size_t b) const {
    return work_[a] * params_.shares[b] < work_[b] * params_.shares[a];
  }
  std::uint64_t level(const QueueItem& i, Tick now) const {
    const auto aged = static_cast<std::uint64_t>((now - i.arrival) / params_.aging);
    return i.priority > aged ? i.priority - aged : 0;
  }
  bool is_before(const QueueItem& a, const QueueItem& b, Tick now) const {
    if (level(a, now) != level(b, now)) return level(a, now) < level(b, now);
    const auto size_a = static_cast<std::size_t>(size_class(a.prompt_tokens));
    const auto size_b = static_cast<std::size_t>(size_class(b.prompt_tokens));
    if (is_behind(size_a, size_b) != is_behind(size_b, size_a)) return is_behind(size_a, size_b);
    if (size_a != size_b) return size_a < size_b;
    const std::uint64_t served_a = served_[a.tenant.value], served_b = served_[b.tenant.value];
    if (served_a != served_b) return served_a < served_b;
    const Tick tick_a = a.arrival + params_.aging * a.priority;
    const Tick tick_b = b.arrival + params_.aging * b.priority;
    return tick_a != tick_b ? tick_a < tick_b : a.id < b.id;
  }

  QueueParams params_;
  std::vector<QueueItem> items_;
  std::vector<std::uint64_t> served_, weight_;
  std::array<std::uint64_t, kSizeClasses> work_{};
  std::uint64_t floor_ = 0;
};

TEST(RequestQueue, ChoosesAsTheNaiveQueueDoes) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    QueueParams params;
    params.aging = std::chrono::seconds(2);
    RequestQueue queue(params, 1, 4);
    NaiveQueue naive(params, 4);
    Tick now{};
    std::uint64_t next_id = 1;
    for (std::uint32_t i = 0; i < 400; ++i) {
      const std::uint64_t dice = random_bits({seed, 0, i}, 0);
      now += std::chrono::milliseconds(dice % 700);
      if (seed % 2 == 0 && i % 100 == 0) {
        const TenantId tenant{static_cast<std::uint32_t>((dice >> 20) % 4)};
        const auto weight = static_cast<std::uint32_t>(1 + (dice >> 40) % 1000);
        queue.set_weight(tenant, weight);
        naive.set_weight(tenant, weight);
      }
      if (dice % 5 < 2) {
        const auto prompt = static_cast<std::uint32_t>(1 + (dice >> 8) % 4000);
        const QueueItem made = item(next_id++, static_cast<std::uint32_t>((dice >> 24) % 4), prompt,
                                    now, static_cast<std::uint32_t>((dice >> 32) % 4));
        queue.push(made);
        naive.push(made);
      } else if (dice % 5 == 2 && !naive.items().empty()) {
        const QueueItem gone = naive.items()[(dice >> 8) % naive.items().size()];
        queue.remove(gone);
        naive.remove(gone.id);
      } else if (dice % 5 == 3) {
        const TenantId tenant{static_cast<std::uint32_t>((dice >> 24) % 4)};
        const auto size = static_cast<SizeClass>((dice >> 30) % kSizeClasses);
        queue.charge(tenant, 0, size, (dice >> 40) % 300);
        naive.charge(tenant, size, (dice >> 40) % 300);
      } else {
        const QueueItem* best = queue.next(0, now);
        const QueueItem* expected = naive.next(now);
        ASSERT_EQ(best == nullptr, expected == nullptr);
        if (best == nullptr) continue;
        ASSERT_EQ(best->id, expected->id);
        const QueueItem taken = *best;
        queue.remove(taken);
        naive.remove(taken.id);
        queue.charge(taken.tenant, 0, size_class(taken.prompt_tokens), taken.prompt_tokens);
        naive.charge(taken.tenant, size_class(taken.prompt_tokens), taken.prompt_tokens);
      }
      ASSERT_EQ(queue.sequences(), naive.items().size());
      queue.check_invariants();
    }
  }
}

struct Served {
  std::array<std::uint64_t, kSizeClasses> by_class{};
  std::vector<std::uint64_t> by_tenant;
};

Served serve(RequestQueue& queue, std::size_t tenants, std::uint64_t tokens) {
  Served served;
  served.by_tenant.resize(tenants);
  for (std::uint64_t done = 0; done < tokens;) {
    const QueueItem* next = queue.next(0, Tick{});
    if (next == nullptr) break;
    const QueueItem taken = *next;
    queue.remove(taken);
    queue.charge(taken.tenant, 0, size_class(taken.prompt_tokens), taken.prompt_tokens);
    served.by_class[static_cast<std::size_t>(size_class(taken.prompt_tokens))] +=
        taken.prompt_tokens;
    served.by_tenant[taken.tenant.value] += taken.prompt_tokens;
    done += taken.prompt_tokens;
  }
  return served;
}

TEST(RequestQueue, SharesTheWorkBetweenSizeClassesAndOverflowsIdleShares) {
  RequestQueue queue(QueueParams{}, 1, 1);
  std::uint64_t id = 1;
  for (int i = 0; i < 400; ++i) {
    for (const std::uint32_t prompt : {500u, 2000u, 4000u})
      queue.push(item(id++, 0, prompt, Tick{}));
  }
  const Served all = serve(queue, 1, 200'000);
  EXPECT_NEAR(static_cast<double>(all.by_class[0]), 100'000, 5'000);
  EXPECT_NEAR(static_cast<double>(all.by_class[1]), 60'000, 5'000);
  EXPECT_NEAR(static_cast<double>(all.by_class[2]), 40'000, 5'000);
  serve(queue, 1, ~0ull);
  for (int i = 0; i < 10; ++i) queue.push(item(id++, 0, 4000, Tick{}));
  EXPECT_EQ(serve(queue, 1, 40'000).by_class[2], 40'000u) << "an idle share was kept";
}

TEST(RequestQueue, ATenantThatFloodsDoesNotStarveTheOthers) {
  RequestQueue queue(QueueParams{}, 1, 2);
  std::uint64_t id = 1;
  for (int i = 0; i < 1000; ++i) queue.push(item(id++, 0, 100, Tick{}));
  serve(queue, 2, 20'000);
  for (int i = 0; i < 100; ++i) queue.push(item(id++, 1, 100, Tick{}));
  const Served both = serve(queue, 2, 10'000);
  EXPECT_NEAR(static_cast<double>(both.by_tenant[0]), 5'000, 200);
  EXPECT_NEAR(static_cast<double>(both.by_tenant[1]), 5'000, 200);
}

TEST(RequestQueue, ServesTenantsByTheirWeight) {
  RequestQueue queue(QueueParams{}, 1, 2);
  queue.set_weight(TenantId{1}, 3);
  std::uint64_t id = 1;
  for (int i = 0; i < 1000; ++i) {
    queue.push(item(id++, 0, 100, Tick{}));
    queue.push(item(id++, 1, 100, Tick{}));
  }
  const Served both = serve(queue, 2, 40'000);
  EXPECT_NEAR(static_cast<double>(both.by_tenant[0]), 10'000, 200);
  EXPECT_NEAR(static_cast<double>(both.by_tenant[1]), 30'000, 200);
}

TEST(RequestQueue, AgingLiftsALowPriorityAboveFreshHighOnes) {
  QueueParams params;
  params.aging = std::chrono::seconds(1);
  RequestQueue queue(params, 1, 1);
  queue.push(item(1, 0, 10, Tick{}, 3));
  const Tick later{std::chrono::seconds(2)};
  queue.push(item(2, 0, 10, later, 0));
  EXPECT_EQ(queue.next(0, later)->id, SequenceId{2});
  const Tick much_later{std::chrono::seconds(4)};
  queue.push(item(3, 0, 10, much_later, 0));
  queue.remove(item(2, 0, 10, later, 0));
  EXPECT_EQ(queue.next(0, much_later)->id, SequenceId{1});
}

TEST(RequestQueue, IsBoundedInRequestsAndInTokens) {
  QueueParams params;
  params.requests_max = 2;
  params.tokens_max = 1000;
  RequestQueue queue(params, 1, 1);
  queue.push(item(1, 0, 300, Tick{}));
  EXPECT_TRUE(queue.has_room(1, 600));
  EXPECT_FALSE(queue.has_room(1, 601));
  queue.push(item(2, 0, 300, Tick{}));
  EXPECT_FALSE(queue.has_room(1, 1));
}

}  // namespace
}  // namespace sluice::gw
