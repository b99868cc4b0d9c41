// The TLS context of the listener: TLS 1.2 and 1.3, HTTP/1.1 by ALPN.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "config/config.h"
#include "shared/result.h"

namespace sluice::gw {

// Null without a configured certificate. Errors: bad_config (which file, and why).
Result<std::unique_ptr<boost::asio::ssl::context>> make_tls_context(const cfg::Listen& listen);

}  // namespace sluice::gw
