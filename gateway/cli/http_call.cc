// OpenSSL's BIO does connecting and TLS; the load client's parser does the framing.
#include "gateway/cli/http_call.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cstring>
#include <memory>

#include "gateway/bench/http_response_parser.h"

namespace sluice::gw {
namespace {

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
};
struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;
using Context = std::unique_ptr<SSL_CTX, FreeContext>;

// The first error of OpenSSL's queue in words: of the system, of the name look-up, or its own.
std::string openssl_reason() {
  const char* data = "";
  int flags = 0;
  const unsigned long code = ERR_get_error_all(nullptr, nullptr, nullptr, &data, &flags);
  std::string reason = "the connection was closed";
  if (ERR_SYSTEM_ERROR(code)) {
    reason = std::strerror(ERR_GET_REASON(code));
  } else if ((flags & ERR_TXT_STRING) != 0 && *data != '\0') {
    reason = data;
  } else if (const char* const text = ERR_reason_error_string(code); text != nullptr) {
    reason = text;
  }
  ERR_clear_error();
  return reason;
}

Error failed(const HttpTarget& target, std::string_view what) {
  return make_error(Errc::io_error, target.host + " port " + target.port + ": " +
                                        std::string(what) + ": " + openssl_reason());
}

Result<Bio> connect_to(const HttpTarget& target, const Context& context) {
  const bool is_v6 = target.host.find(':') != std::string::npos;
  const std::string place = (is_v6 ? "[" + target.host + "]" : target.host) + ":" + target.port;
  Bio bio;
  if (!target.is_tls) {
    bio.reset(BIO_new_connect(place.c_str()));
  } else {
    bio.reset(BIO_new_ssl_connect(context.get()));
    SSL* ssl = nullptr;
    if (!bio || BIO_get_ssl(bio.get(), &ssl) != 1 || ssl == nullptr)
      return failed(target, "no TLS connection");
    SSL_set_mode(ssl, SSL_MODE_AUTO_RETRY);
    // An address is looked for among the addresses of the certificate, and is no name to indicate.
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), target.host.c_str()) != 1) {
      ERR_clear_error();
      // What SSL_set_tlsext_host_name() is; the macro casts in the old style.
      SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
               const_cast<char*>(target.host.c_str()));
      SSL_set1_host(ssl, target.host.c_str());
    }
    BIO_set_conn_hostname(bio.get(), place.c_str());
  }
  if (!bio || BIO_do_connect(bio.get()) != 1) return failed(target, "cannot connect");
  int fd = -1;
  if (BIO_get_fd(bio.get(), &fd) >= 0) {
    const timeval timeout{kCallTimeoutSeconds, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  }
  return bio;
}

Result<Context> make_context(const HttpTarget& target) {
  Context context(SSL_CTX_new(TLS_client_method()));
  if (!context) return failed(target, "no TLS");
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  const int loaded =
      target.authorities.empty()
          ? SSL_CTX_set_default_verify_paths(context.get())
          : SSL_CTX_load_verify_locations(context.get(), target.authorities.c_str(), nullptr);
  if (loaded != 1) return failed(target, "cannot read the certificates to trust");
  return context;
}

std::string request_text(const HttpTarget& target, const HttpCall& call) {
  std::string text = call.method + " " + call.path + " HTTP/1.1\r\nHost: " + target.host +
                     "\r\nConnection: close\r\n" + call.headers;
  if (!call.body.empty())
    text +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(call.body.size()) +
        "\r\n";
  return text + "\r\n" + call.body;
}

Result<HttpAnswer> read_answer(const HttpTarget& target, BIO* bio) {
  bench::HttpResponseParser parser;
  HttpAnswer answer;
  std::array<char, 16 << 10> buffer;
  for (;;) {
    const int got = BIO_read(bio, buffer.data(), static_cast<int>(buffer.size()));
    if (got <= 0) {
      if (!parser.finish_at_close()) return failed(target, "no whole answer");
      answer.status = parser.status();
      return answer;
    }
    std::string_view rest(buffer.data(), static_cast<std::size_t>(got));
    for (;;) {  // also with nothing left: only then a counted body says that it is whole
      const bench::HttpStep step = parser.next(rest);
      rest.remove_prefix(step.consumed);
      if (step.parse == bench::HttpParse::error)
        return make_error(Errc::io_error, "what answers there does not speak HTTP");
      answer.body.append(step.body);
      if (answer.body.size() > kAnswerBytesMax)
        return make_error(Errc::io_error, "the answer is too large");
      if (step.parse == bench::HttpParse::done) {
        answer.status = parser.status();
        return answer;
      }
      if (step.parse == bench::HttpParse::more) break;
    }
  }
}

}  // namespace

Result<HttpTarget> parse_url(std::string_view url) {
  HttpTarget target;
  const auto wrong = [] {
    return make_error(Errc::invalid_value,
                      "a URL such as http://127.0.0.1:8080 or https://gateway.example is needed");
  };
  target.is_tls = url.starts_with("https://");
  if (!target.is_tls && !url.starts_with("http://")) return wrong();
  url.remove_prefix(target.is_tls ? 8 : 7);
  if (url.ends_with('/')) url.remove_suffix(1);
  const std::size_t bracket = url.starts_with('[') ? url.find(']') : std::string_view::npos;
  const std::size_t colon = url.find(':', bracket == std::string_view::npos ? 0 : bracket);
  std::string_view host = url.substr(0, colon);
  if (bracket != std::string_view::npos && host.size() == bracket + 1)
    host = host.substr(1, bracket - 1);
  target.host = host;
  target.port = target.is_tls ? "443" : "80";
  if (colon != std::string_view::npos) target.port = url.substr(colon + 1);
  const bool has_port = !target.port.empty() && target.port.size() <= 5 &&
                        target.port.find_first_not_of("0123456789") == std::string::npos;
  if (target.host.empty() || !has_port ||
      target.host.find_first_of("/?#@[] \t\r\n") != std::string::npos)
    return wrong();
  return target;
}

Result<HttpAnswer> send_call(const HttpTarget& target, const HttpCall& call) {
  Context context;
  if (target.is_tls) {
    Result<Context> made = make_context(target);
    if (!made) return made.error();
    context = std::move(*made);
  }
  const Result<Bio> bio = connect_to(target, context);
  if (!bio) return bio.error();
  const std::string text = request_text(target, call);
  for (std::size_t sent = 0; sent < text.size();) {
    const int count =
        BIO_write(bio->get(), text.data() + sent, static_cast<int>(text.size() - sent));
    if (count <= 0) return failed(target, "cannot send");
    sent += static_cast<std::size_t>(count);
  }
  return read_answer(target, bio->get());
}

}  // namespace sluice::gw
