// The listener: plain and TLS, its connection limit, drain, and the addresses that it refuses.
#include "gateway/http/server.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/resource.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <cstdio>
#include <filesystem>

#include "tests/support/loopback_server.h"

namespace sluice::gw {
namespace {

using test::get;
using test::LoopbackServer;
using test::status_of;

TEST(Server, ServesOverLoopbackAndKeepsTheConnection) {
  LoopbackServer server;
  const UniqueFd fd = server.connect();
  for (int i = 0; i < 3; ++i) {
    LoopbackServer::send(fd, get("/live"));
    EXPECT_EQ(status_of(LoopbackServer::receive(fd, "live\"}")), 200);
  }
}

TEST(Server, AtItsConnectionLimitItSaysSo) {
  cfg::Config config = test::canned_config();
  config.http.connections_max = 2;
  LoopbackServer server(config);
  const UniqueFd a = server.connect();
  const UniqueFd b = server.connect();
  const UniqueFd c = server.connect();
  const std::string refusal = LoopbackServer::receive(c);
  EXPECT_EQ(status_of(refusal), 503);
  EXPECT_EQ(test::body_of(refusal).size(), std::stoul(test::header_of(refusal, "content-length")));
  LoopbackServer::send(a, get("/live"));
  EXPECT_EQ(status_of(LoopbackServer::receive(a, "live\"}")), 200);
}

TEST(Server, HoldsThousandsOfIdleConnections) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  // Both ends live in this process; a system that allows fewer descriptors tests fewer.
  const std::size_t count = std::min<std::size_t>(2000, limit.rlim_cur / 2 - 100);
  LoopbackServer server;
  std::vector<UniqueFd> idle;
  for (std::size_t i = 0; i < count; ++i) idle.push_back(server.connect());
  EXPECT_EQ(status_of(server.exchange(get("/live", "Connection: close\r\n"))), 200);
  server.on_loop([&] { EXPECT_GE(server.server.num_sessions(), count); });
}

TEST(Server, DrainEndsWhenTheLastConnectionIsGone) {
  LoopbackServer server;
  const UniqueFd idle = server.connect();
  LoopbackServer::send(idle, get("/live"));
  LoopbackServer::receive(idle, "live\"}");
  std::promise<void> drained;
  server.on_loop([&] { server.server.begin_drain([&] { drained.set_value(); }); });
  drained.get_future().wait();
  EXPECT_EQ(LoopbackServer::receive(idle), "");
}

TEST(Server, RefusesAddressesItMayNotServe) {
  LoopbackServer other;
  boost::asio::io_context io;
  Server server(io, other.service);
  EXPECT_EQ(server.listen("0.0.0.0", 0).error().code, Errc::bad_config);
  EXPECT_EQ(server.listen("nonsense", 0).error().code, Errc::bad_config);
  const Result<std::uint16_t> taken = server.listen("127.0.0.1", other.port);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, Errc::io_error);
}

// A self-signed certificate and its key, as files that go away.
class Certificate {
 public:
  Certificate() {
    std::string pattern = testing::TempDir() + "tls_XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME* name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_sign(certificate, key, EVP_sha256());
    std::FILE* file = std::fopen(certificate_path().c_str(), "w");
    PEM_write_X509(file, certificate);
    std::fclose(file);
    file = std::fopen(key_path().c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  ~Certificate() { std::filesystem::remove_all(folder_); }
  std::string certificate_path() const { return folder_ + "/cert.pem"; }
  std::string key_path() const { return folder_ + "/key.pem"; }

 private:
  std::string folder_;
};

TEST(Server, SpeaksTls) {
  const Certificate certificate;
  cfg::Config config = test::canned_config();
  config.listen.tls_certificate = certificate.certificate_path();
  config.listen.tls_key = certificate.key_path();
  LoopbackServer server(config);
  boost::asio::io_context io;
  boost::asio::ssl::context context(boost::asio::ssl::context::tls_client);
  context.load_verify_file(certificate.certificate_path());
  boost::asio::ssl::stream<boost::asio::ip::tcp::socket> stream(io, context);
  stream.set_verify_mode(boost::asio::ssl::verify_peer);
  stream.lowest_layer().connect({boost::asio::ip::address_v4::loopback(), server.port});
  stream.handshake(boost::asio::ssl::stream_base::client);
  const std::string body = R"({"model":"canned","prompt":"hi","stream":true})";
  const std::string request = test::post("/v1/completions", body, "Connection: close\r\n");
  boost::asio::write(stream, boost::asio::buffer(request));
  std::string response;
  boost::system::error_code error;
  boost::asio::read(stream, boost::asio::dynamic_buffer(response), error);
  EXPECT_EQ(status_of(response), 200);
  EXPECT_NE(response.find("data: [DONE]"), std::string::npos);
  EXPECT_EQ(error, boost::asio::error::eof) << "a clean end of TLS: " << error.message();
  // A plain client on the TLS port, and one that vanishes in the handshake, end quietly.
  LoopbackServer::send(server.connect(), get("/live"));
  EXPECT_EQ(server.exchange(get("/live")).find("HTTP"), std::string::npos);
}

TEST(Server, ReloadsItsCertificateForNewConnections) {
  const Certificate first;
  const Certificate second;
  cfg::Config config = test::canned_config();
  config.listen.tls_certificate = first.certificate_path();
  config.listen.tls_key = first.key_path();
  LoopbackServer server(config);
  using Stream = boost::asio::ssl::stream<boost::asio::ip::tcp::socket>;
  boost::asio::io_context io;
  // A client that trusts one certificate alone; false: it was shown another one.
  const auto shakes_hands = [&](const Certificate& trusted, std::unique_ptr<Stream>& stream) {
    boost::asio::ssl::context context(boost::asio::ssl::context::tls_client);
    context.load_verify_file(trusted.certificate_path());
    stream = std::make_unique<Stream>(io, context);
    stream->set_verify_mode(boost::asio::ssl::verify_peer);
    stream->lowest_layer().connect({boost::asio::ip::address_v4::loopback(), server.port});
    boost::system::error_code error;
    stream->handshake(boost::asio::ssl::stream_base::client, error);
    return !error;
  };
  std::unique_ptr<Stream> early, late, refused;
  ASSERT_TRUE(shakes_hands(first, early));
  cfg::Listen listen = config.listen;
  listen.tls_key = second.key_path();  // does not fit: the former pair stays
  const auto reload = [&] {
    Result<void> result;
    server.on_loop([&] { result = server.server.reload_certificate(listen); });
    return result;
  };
  EXPECT_EQ(reload().error().code, Errc::bad_config);
  EXPECT_TRUE(shakes_hands(first, late));
  listen.tls_certificate = second.certificate_path();
  ASSERT_TRUE(reload());
  EXPECT_TRUE(shakes_hands(second, late));
  EXPECT_FALSE(shakes_hands(first, refused));
  // The connection that was open goes on under the certificate that it began with.
  boost::asio::write(*early, boost::asio::buffer(get("/live", "Connection: close\r\n")));
  std::string response;
  boost::system::error_code error;
  boost::asio::read(*early, boost::asio::dynamic_buffer(response), error);
  EXPECT_EQ(status_of(response), 200);
}

TEST(Server, RefusesAKeyThatDoesNotFit) {
  const Certificate one;
  const Certificate other;
  cfg::Listen listen;
  listen.tls_certificate = one.certificate_path();
  listen.tls_key = other.key_path();
  cfg::Config config = test::canned_config();
  LoopbackServer base;
  base.service.config.listen = listen;
  boost::asio::io_context io;
  Server server(io, base.service);
  const Result<std::uint16_t> bound = server.listen("127.0.0.1", 0);
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code, Errc::bad_config);
}

}  // namespace
}  // namespace sluice::gw
