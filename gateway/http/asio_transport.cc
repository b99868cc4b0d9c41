// Reads and writes of a socket or TLS stream, with handler memory inside the transport, so that an
// operation allocates nothing.
#include "gateway/http/asio_transport.h"

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <new>
#include <type_traits>

namespace sluice::gw {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// One block, used again and again; a second or larger request goes to the heap.
class HandlerMemory {
 public:
  void* allocate(std::size_t bytes) {
    if (is_used_ || bytes > sizeof block_) return ::operator new(bytes);
    is_used_ = true;
    return block_;
  }
  void deallocate(void* memory) {
    if (memory == block_)
      is_used_ = false;
    else
      ::operator delete(memory);
  }

 private:
  alignas(std::max_align_t) std::byte block_[512];
  bool is_used_ = false;
};

template <class T>
struct HandlerAllocator {
  using value_type = T;
  explicit HandlerAllocator(HandlerMemory& m) : memory(&m) {}
  template <class U>
  HandlerAllocator(const HandlerAllocator<U>& other) : memory(other.memory) {}  // NOLINT: implicit
  T* allocate(std::size_t count) { return static_cast<T*>(memory->allocate(count * sizeof(T))); }
  void deallocate(T* block, std::size_t) { memory->deallocate(block); }
  friend bool operator==(const HandlerAllocator& a, const HandlerAllocator& b) {
    return a.memory == b.memory;
  }
  HandlerMemory* memory;
};

IoResult io_result(const error_code& error) {
  if (!error) return IoResult::ok;
  const bool is_end = error == asio::error::eof || error == asio::ssl::error::stream_truncated;
  return is_end ? IoResult::end_of_stream : IoResult::failed;
}

using TlsStream = asio::ssl::stream<TcpSocket>;

template <class Stream>
class AsioTransport final : public Transport {
 public:
  static constexpr bool kIsTls = std::is_same_v<Stream, TlsStream>;

  template <class... Args>
  explicit AsioTransport(Args&&... args) : stream_(std::forward<Args>(args)...) {
    error_code ignored;  // latency over packing; a socket that is gone fails at its first read
    stream_.lowest_layer().set_option(asio::ip::tcp::no_delay(true), ignored);
  }

  void open(TransportEvents& events) override {
    events_ = &events;
    ++in_flight_;
    auto done = [this](const error_code& error) {
      --in_flight_;
      events_->on_open(io_result(error));
    };
    if constexpr (kIsTls)
      stream_.async_handshake(asio::ssl::stream_base::server,
                              asio::bind_allocator(HandlerAllocator<char>(read_memory_), done));
    else
      asio::post(stream_.get_executor(), [done] { done(error_code()); });
  }

  void read(std::span<char> into) override {
    ++in_flight_;
    stream_.async_read_some(
        asio::buffer(into.data(), into.size()),
        asio::bind_allocator(HandlerAllocator<char>(read_memory_),
                             [this](const error_code& error, std::size_t bytes) {
                               --in_flight_;
                               events_->on_read(io_result(error), bytes);
                             }));
  }

  void write(std::string_view bytes) override {
    ++in_flight_;
    stream_.async_write_some(
        asio::buffer(bytes.data(), bytes.size()),
        asio::bind_allocator(HandlerAllocator<char>(write_memory_),
                             [this](const error_code& error, std::size_t written) {
                               --in_flight_;
                               events_->on_written(io_result(error), written);
                             }));
  }

  void shutdown_send() override {
    if constexpr (kIsTls) {
      // Sends close_notify; completes when the peer answers or the socket is closed.
      ++in_flight_;
      stream_.async_shutdown(
          asio::bind_allocator(HandlerAllocator<char>(write_memory_), [this](const error_code&) {
            --in_flight_;
            events_->on_written(IoResult::failed, 0);
          }));
    } else {
      error_code ignored;  // a peer that is gone already needs no end
      stream_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    }
  }

  void close() override {
    error_code ignored;  // nothing can be done about a failing close
    stream_.lowest_layer().close(ignored);
  }

  bool is_quiet() const override { return in_flight_ == 0; }

 private:
  Stream stream_;
  TransportEvents* events_ = nullptr;
  int in_flight_ = 0;
  HandlerMemory read_memory_;
  HandlerMemory write_memory_;
};

}  // namespace

std::unique_ptr<Transport> make_tcp_transport(TcpSocket socket) {
  return std::make_unique<AsioTransport<TcpSocket>>(std::move(socket));
}

std::unique_ptr<Transport> make_tls_transport(TcpSocket socket, asio::ssl::context& context) {
  return std::make_unique<AsioTransport<TlsStream>>(std::move(socket), context);
}

}  // namespace sluice::gw
