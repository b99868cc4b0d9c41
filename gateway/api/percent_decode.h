// What `%XX` stands for in a path or a query.
#pragma once

#include <string>
#include <string_view>

namespace sluice::gw {

// Replaces `out`. False: a bad escape, or a NUL.
bool percent_decode(std::string_view text, std::string& out);

}  // namespace sluice::gw
