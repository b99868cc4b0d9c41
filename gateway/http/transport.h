// Transport: the byte stream under one connection, plain or TLS. One read and one write may be in
// flight at a time; each start is answered by exactly one event, never from inside the starting
// call. After close() the events of what was in flight still come; the transport may be destroyed
// when is_quiet(). One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sluice::gw {

enum class IoResult : std::uint8_t { ok, end_of_stream, failed };

class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  virtual void on_open(IoResult result) = 0;  // the handshake, where there is one
  virtual void on_read(IoResult result, std::size_t bytes) = 0;
  virtual void on_written(IoResult result, std::size_t bytes) = 0;  // >= 1 when ok, maybe not all
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual void open(TransportEvents& events) = 0;
  virtual void read(std::span<char> into) = 0;     // REQUIRES: none in flight, not empty
  virtual void write(std::string_view bytes) = 0;  // REQUIRES: likewise; outlives the event
  virtual void shutdown_send() = 0;                // REQUIRES: no write in flight
  virtual void close() = 0;
  virtual bool is_quiet() const = 0;  // nothing in flight
};

}  // namespace sluice::gw
