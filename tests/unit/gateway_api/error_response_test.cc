// The error envelope: what clients match on, and that inner errors stay inside.
#include "gateway/api/error_response.h"

#include <gtest/gtest.h>

#include "shared/result.h"

namespace sluice::gw {
namespace {

TEST(ErrorResponse, HasMessageTypeParamAndCode) {
  std::string out;
  append_error_json(out, make_error(Errc::invalid_value, "'n' must be \"small\"", "n"));
  EXPECT_EQ(out, R"({"error":{"message":"'n' must be \"small\"","type":"invalid_request_error",)"
                 R"("param":"n","code":"invalid_value"}})");
}

TEST(ErrorResponse, InnerErrorsTellNothing) {
  std::string out;
  append_error_json(out, make_error(Errc::io_error, "/secret/path: no space"));
  EXPECT_EQ(out.find("secret"), std::string::npos);
  EXPECT_NE(out.find("internal_error"), std::string::npos);
}

TEST(ErrorResponse, RetryAfterRoundsUpToSecondsAndGivesMilliseconds) {
  Error error = make_error(Errc::overloaded, "full");
  error.retry_after = std::chrono::milliseconds(1200);
  std::string out;
  append_error_headers(out, error);
  EXPECT_EQ(out, "retry-after: 2\r\nretry-after-ms: 1200\r\n");
}

TEST(ErrorResponse, SaysWhenARetryCannotHelp) {
  std::string out;
  append_error_headers(out, make_error(Errc::insufficient_quota, "spent"));
  append_error_headers(out, make_error(Errc::deadline_exceeded, "late"));
  EXPECT_EQ(out, "x-should-retry: false\r\nx-should-retry: false\r\n");
  out.clear();
  append_error_headers(out, make_error(Errc::invalid_value, "bad"));
  EXPECT_EQ(out, "");
}

TEST(ErrorResponse, AMissingKeyNamesTheScheme) {
  std::string out;
  append_error_headers(out, make_error(Errc::invalid_api_key, "no key"));
  EXPECT_EQ(out, "www-authenticate: Bearer\r\n");
}

}  // namespace
}  // namespace sluice::gw
