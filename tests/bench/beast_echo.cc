// A bare Beast server, the yardstick of the HTTP path: it reads the same POST with Beast's parser
// and answers with a fixed JSON body of the size of a one-token completion. One thread, one
// coroutine per connection, nothing else: what Sluice costs more than this is Sluice.
//
//   beast_echo preformatted   one async_write of head and body (default)
//   beast_echo serializer     a Beast response object written by its serializer
//
// Listens on 127.0.0.1, port 0; prints "port N".
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>
#include <string>
#include <string_view>

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<asio::ip::tcp, Executor>;
template <class T>
using Task = asio::awaitable<T, Executor>;
constexpr asio::use_awaitable_t<Executor> kAwait;

enum class Variant { preformatted, serializer };

constexpr std::string_view kBody =
    R"({"id":"cmpl-000000000000000000000000","object":"text_completion","created":1700000000,)"
    R"("model":"canned","system_fingerprint":"fp_0000000000000000","choices":[{"index":0,)"
    R"("text":"and","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":16,)"
    R"("completion_tokens":1,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":0}}})";

std::string preformatted() {
  return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
         "x-request-id: req-0000000000000000\r\nopenai-processing-ms: 0\r\nContent-Length: " +
         std::to_string(kBody.size()) + "\r\n\r\n" + std::string(kBody);
}

Task<void> serve(Socket socket, Variant variant) {
  const std::string fixed = preformatted();
  boost::beast::flat_buffer buffer;
  boost::system::error_code error;
  for (;;) {
    http::request<http::string_body> request;
    co_await http::async_read(socket, buffer, request, asio::redirect_error(kAwait, error));
    if (error) co_return;
    if (variant == Variant::preformatted) {
      co_await asio::async_write(socket, asio::buffer(fixed), asio::redirect_error(kAwait, error));
    } else {
      http::response<http::string_body> response(http::status::ok, request.version());
      response.set(http::field::content_type, "application/json");
      response.set("x-request-id", "req-0000000000000000");
      response.set("openai-processing-ms", "0");
      response.body() = kBody;
      response.prepare_payload();
      co_await http::async_write(socket, response, asio::redirect_error(kAwait, error));
    }
    if (error) co_return;
  }
}

Task<void> accept_all(asio::basic_socket_acceptor<asio::ip::tcp, Executor>& acceptor,
                      Variant variant) {
  for (;;) {
    Socket socket = co_await acceptor.async_accept(kAwait);
    socket.set_option(asio::ip::tcp::no_delay(true));
    asio::co_spawn(acceptor.get_executor(), serve(std::move(socket), variant), asio::detached);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool is_serializer = argc > 1 && std::string_view(argv[1]) == "serializer";
  asio::io_context context(1);
  asio::basic_socket_acceptor<asio::ip::tcp, Executor> acceptor(
      context.get_executor(), {asio::ip::address_v4::loopback(), 0});
  std::printf("port %d\n", static_cast<int>(acceptor.local_endpoint().port()));
  std::fflush(stdout);
  asio::co_spawn(context.get_executor(),
                 accept_all(acceptor, is_serializer ? Variant::serializer : Variant::preformatted),
                 asio::detached);
  context.run();
  return 0;
}
