// The HTTP part of the metrics page.
#include "gateway/http/http_metrics.h"

#include "gateway/api/json_text.h"

namespace sluice::gw {

void append_metric_head(std::string& out, std::string_view name, std::string_view type,
                        std::string_view help) {
  out.append("# HELP ").append(name).append(" ").append(help);
  out.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
}

void append_sample(std::string& out, std::string_view name, std::string_view labels,
                   std::uint64_t value) {
  out.append(name);
  if (!labels.empty()) out.append("{").append(labels).append("}");
  out.push_back(' ');
  append_integer(out, value);
  out.push_back('\n');
}

void append_http_metrics(std::string& out, const HttpMetrics& m) {
  std::string labels;
  append_metric_head(out, "sluice_http_responses_total", "counter",
                     "Answers by route and class of status");
  for (std::size_t endpoint = 0; endpoint < kEndpoints; ++endpoint) {
    for (std::size_t status_class = 0; status_class < 6; ++status_class) {
      const std::uint64_t count = m.responses[endpoint][status_class];
      if (count == 0) continue;
      labels.assign("route=\"").append(endpoint_name(static_cast<Endpoint>(endpoint)));
      labels.append("\",status=\"").push_back(static_cast<char>('0' + status_class));
      labels.append("xx\"");
      append_sample(out, "sluice_http_responses_total", labels, count);
    }
  }
  append_metric_head(out, "sluice_http_errors_total", "counter", "Errors told to clients, by code");
  // Several errors share an API code: their sum is one sample.
  const auto rows = error_rows();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    bool is_first = true;
    std::uint64_t count = 0;
    for (std::size_t k = 0; k < rows.size(); ++k) {
      if (rows[k].api_code != rows[i].api_code) continue;
      if (k < i) is_first = false;
      count += m.errors[k];
    }
    if (!is_first || count == 0) continue;
    labels.assign("code=\"").append(rows[i].api_code).append("\"");
    append_sample(out, "sluice_http_errors_total", labels, count);
  }
  const auto append = [&](std::string_view name, std::string_view type, std::string_view help,
                          std::uint64_t value) {
    append_metric_head(out, name, type, help);
    append_sample(out, name, {}, value);
  };
  append("sluice_http_connections_opened_total", "counter", "Connections accepted",
         m.connections_opened);
  append("sluice_http_connections_refused_total", "counter", "Connections over the limit",
         m.connections_refused);
  append("sluice_http_connections_open", "gauge", "Connections open now", m.connections_open);
  append("sluice_http_read_bytes_total", "counter", "Bytes from clients", m.bytes_read);
  append("sluice_http_written_bytes_total", "counter", "Bytes to clients", m.bytes_written);
  append("sluice_http_clients_gone_total", "counter", "Clients that left while a request ran",
         m.clients_gone);
  append("sluice_stream_events_total", "counter", "Token events written to streams",
         m.stream_events);
  append("sluice_request_parse_nanoseconds_total", "counter", "Time spent parsing JSON bodies",
         m.parse_ns);
  append("sluice_tokenize_pool_jobs_total", "counter", "Texts tokenized by the pool", m.pool_jobs);
  append("sluice_http_body_bytes_held", "gauge", "Bytes of bodies being read now",
         m.body_bytes_held);
}

}  // namespace sluice::gw
