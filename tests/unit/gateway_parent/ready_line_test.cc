// The words that tell an operator where Sluice serves.
#include "gateway/parent/ready_line.h"

#include <gtest/gtest.h>

namespace sluice::gw {
namespace {

TEST(ReadyLine, NamesAddressModelAndWorkersAndACommandToPaste) {
  const std::string text = ready_text(cfg::Config{}, 8080);
  EXPECT_EQ(text.find("sluice ready: http://127.0.0.1:8080  model brook  1 worker\n"), 0u);
  EXPECT_NE(text.find("curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: "
                      "application/json' -d '{\"model\": \"brook\", \"messages\": [{\"role\": "
                      "\"user\", \"content\": \"What is Sluice?\"}]}'\n"),
            std::string::npos);
  EXPECT_EQ(text.find("Bearer"), std::string::npos);
}

TEST(ReadyLine, AWildcardAddressBecomesOneThatAClientCanUse) {
  cfg::Config config;
  config.listen.address = "::";
  config.listen.tls_certificate = "cert.pem";
  config.tenants.push_back({});
  config.tenants[0].keys.push_back({});
  const std::string text = ready_text(config, 443);
  EXPECT_EQ(text.find("sluice ready: https://[::1]:443  "), 0u);
  EXPECT_NE(text.find("Bearer"), std::string::npos);
}

}  // namespace
}  // namespace sluice::gw
