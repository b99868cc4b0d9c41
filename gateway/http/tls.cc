// Certificate, key, protocol versions, ALPN.
#include "gateway/http/tls.h"

#include <openssl/ssl.h>

#include <string_view>

namespace sluice::gw {
namespace {

int choose_http11(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
                  unsigned int in_size, void*) {
  constexpr std::string_view kName = "http/1.1";
  for (unsigned int at = 0; at < in_size; at += 1u + in[at]) {
    const unsigned int size = in[at];
    if (at + 1 + size > in_size) break;
    if (std::string_view(reinterpret_cast<const char*>(in + at + 1), size) != kName) continue;
    *out = in + at + 1;
    *out_size = in[at];
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_NOACK;
}

}  // namespace

Result<std::unique_ptr<boost::asio::ssl::context>> make_tls_context(const cfg::Listen& listen) {
  namespace ssl = boost::asio::ssl;
  if (listen.tls_certificate.empty()) return std::unique_ptr<ssl::context>();
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  boost::system::error_code error;
  context->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                           ssl::context::no_sslv3 | ssl::context::no_tlsv1 |
                           ssl::context::no_tlsv1_1,
                       error);
  if (!error) context->use_certificate_chain_file(listen.tls_certificate, error);
  if (error)
    return make_error(Errc::bad_config,
                      "the certificate " + listen.tls_certificate + ": " + error.message(),
                      "listen.tls_certificate");
  context->use_private_key_file(listen.tls_key, ssl::context::pem, error);
  if (error)
    return make_error(Errc::bad_config, "the key " + listen.tls_key + ": " + error.message(),
                      "listen.tls_key");
  SSL_CTX* native = context->native_handle();
  if (SSL_CTX_check_private_key(native) != 1)
    return make_error(Errc::bad_config, "the key does not belong to the certificate",
                      "listen.tls_key");
  SSL_CTX_set_alpn_select_cb(native, choose_http11, nullptr);
  // Idle TLS connections give their record buffers back.
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);
  return context;
}

}  // namespace sluice::gw
