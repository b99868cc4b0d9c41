// Result<T>: a value or an Error. boost::system::result with [[nodiscard]], so that a dropped
// failure is a compiler warning. Use: `if (!r) return r.error();`
#pragma once

#include <boost/system/result.hpp>

#include "shared/check.h"
#include "shared/errors.h"

namespace sluice {

// value() on an error is our own bug: it stops the process instead of throwing.
[[noreturn]] inline void throw_exception_from_error(const Error& error,
                                                    const boost::source_location&) {
  check_failed("Result::value() on an error", error.detail.c_str(), __FILE__, __LINE__);
}

template <class T>
class [[nodiscard]] Result : public boost::system::result<T, Error> {
 public:
  using boost::system::result<T, Error>::result;
};

inline Error make_error(Errc code, std::string detail, std::string param = {}) {
  return Error{code, std::move(detail), std::move(param), std::nullopt};
}

}  // namespace sluice
