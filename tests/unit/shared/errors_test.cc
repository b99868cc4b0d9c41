// The error table: complete, consistent with HTTP, and no code without a counter label.
#include "shared/errors.h"

#include <gtest/gtest.h>

#include "shared/result.h"

namespace sluice {
namespace {

TEST(Errors, EveryCodeHasARowWithAStatusOfAnError) {
  ASSERT_EQ(error_rows().size(), kErrcCount);
  for (const ErrorRow& row : error_rows()) {
    EXPECT_GE(row.http_status, 400) << row.api_code;
    EXPECT_LE(row.http_status, 504) << row.api_code;
    EXPECT_FALSE(row.type.empty());
    EXPECT_FALSE(row.api_code.empty());
  }
}

TEST(Errors, ClientErrorsOtherThan408And429AreNotRetryable) {
  for (const ErrorRow& row : error_rows()) {
    if (row.http_status >= 500 || row.http_status == 408 || row.http_status == 429) continue;
    EXPECT_FALSE(row.retryable) << row.api_code;
  }
}

TEST(Result, CarriesAValueOrAnError) {
  const Result<int> value = 7;
  ASSERT_TRUE(value);
  EXPECT_EQ(*value, 7);
  const Result<int> error = make_error(Errc::overloaded, "queue is full");
  ASSERT_FALSE(error);
  EXPECT_EQ(error.error().code, Errc::overloaded);
}

}  // namespace
}  // namespace sluice
