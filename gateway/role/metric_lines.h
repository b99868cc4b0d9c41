// Lines of the metrics page beyond whole numbers: real samples, histograms, label values.
#pragma once

#include <string>
#include <string_view>

#include "gateway/core/histogram.h"

namespace sluice::gw {

// Quotes, backslashes and line ends as the format wants them.
std::string escape_label(std::string_view text);

void append_real(std::string& out, std::string_view name, std::string_view labels, double value);

// One series: buckets, sum and count. `unit`: what one of its integers is worth in the exported
// unit.
void append_histogram(std::string& out, std::string_view name, std::string_view labels,
                      const Histogram& histogram, double unit);

}  // namespace sluice::gw
