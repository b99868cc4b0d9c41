// The tokenizing pool: fair over tenants, bounded, and safe against owners that go away.
#include "gateway/http/tokenize_pool.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "tests/support/http_fixture.h"

namespace sluice::gw {
namespace {

// Collects delivered jobs; the first delivery can be held to keep the thread busy.
class Deliveries {
 public:
  std::function<void(std::shared_ptr<EncodeJob>)> callback() {
    return [this](std::shared_ptr<EncodeJob> job) {
      std::unique_lock lock(mutex_);
      done_.push_back(std::move(job));
      changed_.notify_all();
      changed_.wait(lock, [this] { return !is_held_; });
    };
  }
  void hold() {
    const std::lock_guard lock(mutex_);
    is_held_ = true;
  }
  void release() {
    const std::lock_guard lock(mutex_);
    is_held_ = false;
    changed_.notify_all();
  }
  std::vector<std::shared_ptr<EncodeJob>> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_.size() >= count; });
    return done_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<EncodeJob>> done_;
  bool is_held_ = false;
};

std::shared_ptr<EncodeJob> job_of(const ServedModel& model, std::uint32_t tenant,
                                  std::string text) {
  auto job = std::make_shared<EncodeJob>();
  job->model = &model;
  job->tenant = TenantId(tenant);
  job->request.reset(ApiKind::completion);
  job->request.prompts.emplace_back().text = std::move(text);
  return job;
}

TEST(TokenizePool, GivesTheSameIdsAsTheLoop) {
  const ServedModel model = test::load_canned({});
  Deliveries deliveries;
  TokenizePool pool(2, deliveries.callback());
  const auto job = job_of(model, 0, "Once upon a time");
  ASSERT_TRUE(pool.submit(job));
  deliveries.wait_for(1);
  std::vector<std::vector<TokenId>> expected;
  ASSERT_TRUE(encode_prompts(model, job->request, expected));
  EXPECT_EQ(job->ids, expected);
}

TEST(TokenizePool, TakesTenantsInTurn) {
  const ServedModel model = test::load_canned({});
  Deliveries deliveries;
  deliveries.hold();
  TokenizePool pool(1, deliveries.callback());
  ASSERT_TRUE(pool.submit(job_of(model, 9, "first")));
  deliveries.wait_for(1);  // the thread is held now
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(pool.submit(job_of(model, 1, "greedy")));
  ASSERT_TRUE(pool.submit(job_of(model, 2, "modest")));
  deliveries.release();
  const auto done = deliveries.wait_for(7);
  EXPECT_EQ(done[1]->tenant, TenantId(1));
  EXPECT_EQ(done[2]->tenant, TenantId(2)) << "not behind all of the greedy one's";
}

TEST(TokenizePool, RefusesAtItsBoundWithAHint) {
  const ServedModel model = test::load_canned({});
  Deliveries deliveries;
  deliveries.hold();
  TokenizePool pool(1, deliveries.callback());
  ASSERT_TRUE(pool.submit(job_of(model, 0, "first")));
  deliveries.wait_for(1);
  for (std::size_t i = 0; i < kTokenizeJobsMax; ++i)
    ASSERT_TRUE(pool.submit(job_of(model, 0, "x")));
  const Result<void> refused = pool.submit(job_of(model, 0, "x"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::overloaded);
  EXPECT_TRUE(refused.error().retry_after.has_value());
  EXPECT_EQ(pool.num_waiting(), kTokenizeJobsMax);
  deliveries.release();
}

TEST(TokenizePool, LongTextsOfASessionTakeTheDetour) {
  test::HttpFixture f;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::shared_ptr<EncodeJob>> done;
  f.service.pool = std::make_unique<TokenizePool>(1, [&](std::shared_ptr<EncodeJob> job) {
    const std::lock_guard lock(mutex);
    done.push_back(std::move(job));
    changed.notify_all();
  });
  const std::string body =
      R"({"model":"canned","max_tokens":2,"prompt":")" + std::string(9000, 'a') + "\"}";
  const auto deliver_next = [&](std::size_t count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done.size() >= count; });
    const auto job = done[count - 1];
    lock.unlock();
    if (job->on_done) job->on_done(*job);
  };
  f.service.config.models[0].context_tokens = 1 << 20;
  auto& c = f.connect();
  c.wire.input = test::post("/tokenize", R"({"prompt":")" + std::string(9000, 'a') + "\"}");
  f.turn();
  EXPECT_EQ(c.wire.output, "");
  deliver_next(1);
  f.turn();
  EXPECT_EQ(test::status_of(c.wire.output), 200);
  EXPECT_EQ(f.service.metrics.pool_jobs, 1u);

  auto& gone = f.connect();
  gone.wire.input = test::post("/v1/completions", body);
  f.turn();
  gone.wire.is_input_ended = true;
  f.turn();
  EXPECT_EQ(gone.session, nullptr);
  deliver_next(2);  // nobody waits for it any more
  f.turn();
  EXPECT_TRUE(f.loop.requests.empty());
}

TEST(TokenizePool, LongBodiesOfASessionAreParsedThereToo) {
  cfg::Config config = test::canned_config();
  config.models.at(0).context_tokens = 1 << 20;
  test::HttpFixture f(config);
  f.loop.facts.context_tokens = 1 << 20;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::shared_ptr<EncodeJob>> done;
  f.service.pool = std::make_unique<TokenizePool>(1, [&](std::shared_ptr<EncodeJob> job) {
    const std::lock_guard lock(mutex);
    done.push_back(std::move(job));
    changed.notify_all();
  });
  const auto deliver_next = [&](std::size_t count) {
    // A long body takes many reads.
    for (int i = 0; i < 1000 && f.service.metrics.pool_jobs < count; ++i) f.turn();
    ASSERT_EQ(f.service.metrics.pool_jobs, count);
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done.size() >= count; });
    const auto job = done[count - 1];
    lock.unlock();
    if (job->on_done) job->on_done(*job);
  };
  const std::string text(kInlineParseBytesMax, 'a');
  auto& c = f.connect();
  c.wire.input = test::post("/v1/completions",
                            R"({"model":"canned","max_tokens":2,"prompt":")" + text + "\"}");
  f.turn();
  EXPECT_TRUE(f.loop.requests.empty());
  deliver_next(1);  // parsed
  EXPECT_TRUE(f.loop.requests.empty());
  deliver_next(2);  // tokenized
  f.turn();
  EXPECT_EQ(f.loop.requests.size(), 1u);
  EXPECT_EQ(f.service.metrics.pool_jobs, 2u);

  auto& broken = f.connect();
  broken.wire.input = test::post("/v1/completions", R"({"model":"canned","prompt":")" + text);
  f.turn();
  deliver_next(3);
  f.turn();
  EXPECT_EQ(test::status_of(broken.wire.output), 400);

  auto& unknown = f.connect();
  unknown.wire.input =
      test::post("/v1/completions", R"({"model":"other","prompt":")" + text + "\"}");
  f.turn();
  deliver_next(4);
  f.turn();
  EXPECT_EQ(test::status_of(unknown.wire.output), 404);

  auto& gone = f.connect();
  gone.wire.input = test::post("/v1/completions", R"({"model":"canned","prompt":")" + text + "\"}");
  while (f.service.metrics.pool_jobs < 5) f.turn();
  gone.wire.is_input_ended = true;
  f.turn();
  EXPECT_EQ(gone.session, nullptr);
  deliver_next(5);  // nobody waits for it any more
  f.turn();
  EXPECT_EQ(f.loop.requests.size(), 1u);
}

}  // namespace
}  // namespace sluice::gw
