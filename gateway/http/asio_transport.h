// The transports over Asio: plain TCP and TLS, from one template that only its own file
// instantiates.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "gateway/http/transport.h"

namespace sluice::gw {

// A concrete executor: no type erasure on the path of every byte.
using TcpSocket =
    boost::asio::basic_stream_socket<boost::asio::ip::tcp, boost::asio::io_context::executor_type>;

std::unique_ptr<Transport> make_tcp_transport(TcpSocket socket);
// `context` outlives the transport.
std::unique_ptr<Transport> make_tls_transport(TcpSocket socket, boost::asio::ssl::context& context);

}  // namespace sluice::gw
