// Prometheus text of numbers that are not whole.
#include "gateway/role/metric_lines.h"

#include <cstdio>

#include "gateway/http/http_metrics.h"

namespace sluice::gw {

std::string escape_label(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out.push_back('\\');
    out.append(c == '\n' ? std::string_view("\\n") : std::string_view(&c, 1));
  }
  return out;
}

void append_real(std::string& out, std::string_view name, std::string_view labels, double value) {
  char text[40];
  const int size = std::snprintf(text, sizeof text, "%.9g", value);
  out.append(name).append("{").append(labels).append("} ");
  out.append(text, static_cast<std::size_t>(size)).append("\n");
}

void append_histogram(std::string& out, std::string_view name, std::string_view labels,
                      const Histogram& histogram, double unit) {
  const std::string base(name);
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < histogram.counts().size(); ++i) {
    below += histogram.counts()[i];
    char border[32] = "+Inf";
    if (i < histogram.borders().size())
      std::snprintf(border, sizeof border, "%g",
                    static_cast<double>(histogram.borders()[i]) * unit);
    append_sample(out, base + "_bucket",
                  std::string(labels) + ",le=\"" + std::string(border) + "\"", below);
  }
  append_real(out, base + "_sum", labels, static_cast<double>(histogram.sum()) * unit);
  append_sample(out, base + "_count", labels, histogram.count());
}

}  // namespace sluice::gw
