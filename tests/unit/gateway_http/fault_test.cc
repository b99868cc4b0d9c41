// Fault injection: the n-th I/O operation of a conversation fails, for every n until a run passes.
// Whatever fails, the request ends, the session is retired and nothing is billed after the fault.
#include <gtest/gtest.h>

#include "tests/support/http_fixture.h"

namespace sluice::gw {
namespace {

using test::HttpFixture;
using test::post;

void run_with_faults(const std::string& path, const std::string& body) {
  for (int fail_at = 0;; ++fail_at) {
    ASSERT_LT(fail_at, 1000) << "no run passes";
    HttpFixture f;
    auto& c = f.connect();
    c.wire.fail_at = fail_at;
    c.wire.read_bytes_max = 61;
    c.wire.write_bytes_max = 97;
    c.wire.input = post(path, body, "Expect: 100-continue\r\n") + test::get("/live");
    f.turn_all();
    const bool was_hit = c.wire.num_operations > fail_at;
    EXPECT_EQ(f.loop.num_live(), 0u) << "operation " << fail_at;
    EXPECT_EQ(f.service.metrics.body_bytes_held, 0u) << "operation " << fail_at;
    if (!was_hit) {
      EXPECT_NE(c.wire.output.find("\"live\""), std::string::npos);
      return;
    }
    EXPECT_TRUE(c.wire.is_closed) << "operation " << fail_at;
    EXPECT_EQ(c.session, nullptr) << "operation " << fail_at;
  }
}

TEST(Faults, AWholeAnswer) {
  run_with_faults("/v1/chat/completions",
                  R"({"model":"canned","messages":[{"role":"user","content":"hi"}]})");
}

TEST(Faults, AStream) {
  run_with_faults("/v1/completions", R"({"model":"canned","prompt":"hi","stream":true,"n":2})");
}

TEST(Faults, AnErrorAnswer) {
  run_with_faults("/v1/completions", "{}");
}

}  // namespace
}  // namespace sluice::gw
