// The words of the ready line.
#include "gateway/parent/ready_line.h"

namespace sluice::gw {
namespace {

// An address that a client on this machine can use: a wildcard is no destination.
std::string host_of(const std::string& address) {
  if (address == "0.0.0.0") return "127.0.0.1";
  if (address == "::") return "[::1]";
  return address.find(':') == std::string::npos ? address : "[" + address + "]";
}

}  // namespace

std::string ready_text(const cfg::Config& config, std::uint16_t port) {
  const bool has_tls = !config.listen.tls_certificate.empty();
  const std::string url = (has_tls ? "https://" : "http://") + host_of(config.listen.address) +
                          ":" + std::to_string(port);
  std::string text = "sluice ready: " + url;
  std::uint32_t num_workers = 0;
  for (const cfg::Model& model : config.models) {
    text += "  model " + model.name;
    if (model.kind == cfg::ModelKind::canned) text += " (canned executor, no real text)";
    num_workers += model.workers;
  }
  text += "  " + std::to_string(num_workers) + (num_workers == 1 ? " worker\n" : " workers\n");
  text += "curl " + std::string(has_tls ? "-k " : "") + url + "/v1/chat/completions";
  bool has_keys = false;
  for (const cfg::Tenant& tenant : config.tenants) has_keys = has_keys || !tenant.keys.empty();
  if (has_keys) text += " -H \"authorization: Bearer $SLUICE_KEY\"";
  text += " -H 'content-type: application/json' -d '{\"model\": \"" + config.models.front().name +
          "\", \"messages\": [{\"role\": \"user\", \"content\": \"What is Sluice?\"}]}'\n";
  return text;
}

}  // namespace sluice::gw
