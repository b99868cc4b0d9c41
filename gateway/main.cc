// The command line of `sluice`.
#include <sysexits.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <optional>
#include <vector>

#include "config/load_config.h"
#include "gateway/bench/bench.h"
#include "gateway/cli/admin_commands.h"
#include "gateway/cli/admin_key_commands.h"
#include "gateway/commands.h"
#include "gateway/parent/parent.h"
#include "gateway/role/gateway_role.h"
#include "shared/control.h"

namespace sluice {
namespace {

// Flags that override the file.
struct ServeFlags {
  std::string config_file;
  std::optional<std::uint16_t> port;
  std::optional<std::string> address, model, state_dir;
  std::optional<std::uint32_t> workers;
};

Result<cfg::Config> effective_config(const ServeFlags& flags) {
  cfg::Config config;
  if (!flags.config_file.empty()) {
    auto loaded = cfg::load_config(flags.config_file);
    if (!loaded) return loaded.error();
    config = std::move(*loaded);
  }
  if (flags.port) config.listen.port = *flags.port;
  if (flags.address) config.listen.address = *flags.address;
  if (flags.state_dir) config.state_dir = *flags.state_dir;
  if (flags.model) {
    cfg::Model& model = config.models.front();
    model.path = *flags.model;
    model.kind = cfg::ModelKind::llama;
    // The name that requests use: the configuration's, else the directory's or the file's.
    if (model.name == cfg::Model{}.name) {
      const auto path = std::filesystem::weakly_canonical(*flags.model);
      model.name = (path.extension() == ".gguf" ? path.stem() : path.filename()).string();
    }
  }
  if (flags.workers) config.models.front().workers = *flags.workers;
  if (auto checked = cfg::validate(config); !checked) return checked.error();
  return config;
}

std::filesystem::path own_program() {
  std::error_code failed;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", failed);
  // A program that was replaced while it runs is still reachable by the link itself.
  return failed || !std::filesystem::exists(path, failed) ? "/proc/self/exe" : path;
}

int serve(const ServeFlags& flags) {
  auto config = effective_config(flags);
  if (!config) {
    std::cerr << "sluice: " << config.error().detail << '\n';
    return EX_CONFIG;  // sluice.service: started again it would say the same
  }
  const std::filesystem::path program = own_program();
  gw::ParentOptions options;
  options.config = std::move(*config);
  if (!flags.config_file.empty()) options.reload = [flags] { return effective_config(flags); };
  options.gateway_command = {program.string(), "gateway-role"};
  options.worker_command = {(program.parent_path() / "sluice-worker").string()};
  return gw::run_parent(std::move(options));
}

// The worker's program knows models; it takes this one's place. argv[0] is the command's name.
int run_worker_command(char** argv) {
  const std::string program = (own_program().parent_path() / "sluice-worker").string();
  std::string name = "sluice-worker";
  std::vector<char*> arguments{name.data()};
  while (*argv != nullptr) arguments.push_back(*argv++);
  arguments.push_back(nullptr);
  ::execv(program.c_str(), arguments.data());
  std::cerr << "sluice: " << program << ": " << std::strerror(errno) << '\n';
  return 1;
}

// Where a gateway with these flags keeps its tables; made where missing, as a start would.
Result<std::string> tables_folder(const ServeFlags& flags) {
  const auto config = effective_config(flags);
  if (!config) return config.error();
  const Result<std::string> folder = cfg::effective_state_dir(*config);
  if (!folder) return folder.error();
  std::error_code failed;
  if (std::filesystem::create_directories(*folder, failed))
    std::filesystem::permissions(*folder, std::filesystem::perms::owner_all, failed);
  if (failed) return make_error(Errc::io_error, *folder + ": " + failed.message());
  return folder;
}

int run(int argc, char** argv) {
  // These have options of their own.
  if (argc > 1 && std::string_view(argv[1]) == "bench") return bench::run_bench(argc - 1, argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "perplexity") return run_worker_command(argv + 1);

  CLI::App app("Sluice: an OpenAI-compatible gateway with co-located inference workers", "sluice");
  app.set_version_flag("--version", "sluice " SLUICE_VERSION);
  app.require_subcommand(1);

  ServeFlags flags;
  CLI::App* const serve_command = app.add_subcommand("serve", "Serve until SIGTERM or Ctrl-C");
  serve_command->add_option("--config", flags.config_file, "YAML file; SIGHUP reads it again");
  serve_command->add_option("--port", flags.port, "TCP port; 0: the system picks one");
  serve_command->add_option("--address", flags.address, "Address to bind");
  serve_command->add_option(
      "--model", flags.model,
      "Model directory (Hugging Face layout) or GGUF file, served as the first model");
  serve_command->add_option("--workers", flags.workers, "Worker processes of the first model");
  serve_command->add_option("--state-dir", flags.state_dir, "Directory of journal and lock");

  CLI::App* const role_command = app.add_subcommand("gateway-role")->group("");

  ServeFlags tokenize_flags;
  std::string text;
  CLI::App* const tokenize_command =
      app.add_subcommand("tokenize", "Print ids and pieces of a text");
  tokenize_command->add_option("--config", tokenize_flags.config_file, "YAML file");
  tokenize_command->add_option("--model", tokenize_flags.model,
                               "Directory or GGUF file of the model");
  tokenize_command->add_option("text", text, "The text, or - for standard input")->required();

  std::string file;
  CLI::App* const check_command =
      app.add_subcommand("check-config", "Check a configuration file and print what it amounts to");
  check_command->add_option("file", file, "YAML file")->required();

  std::string model;
  CLI::App* const inspect_command =
      app.add_subcommand("inspect", "Validate a model and print what it holds");
  inspect_command->add_option("model", model, "Directory (Hugging Face layout) or GGUF file")
      ->required();

  CLI::App* const key_command = app.add_subcommand("key", "API keys");
  key_command->require_subcommand(1);
  CLI::App* const hash_command =
      key_command->add_subcommand("hash", "Read a key from standard input, print its SHA-256");
  CLI::App* const new_command =
      key_command->add_subcommand("new", "Print a fresh key and its SHA-256");

  gw::AdminCommands admin_commands(app, *key_command);

  ServeFlags admin_flags;
  std::string public_id;
  CLI::App* const admin_key_command =
      app.add_subcommand("admin-key", "Keys of the admin routes, in a state directory");
  admin_key_command->require_subcommand(1);
  CLI::App* const create_command =
      admin_key_command->add_subcommand("create", "Make one and print it, once");
  CLI::App* const list_command = admin_key_command->add_subcommand("list", "Print their ids");
  CLI::App* const delete_command = admin_key_command->add_subcommand("delete", "Take one away");
  delete_command->add_option("id", public_id, "Its id: sk-sluice-admin-ID-...")->required();
  for (CLI::App* command : {create_command, list_command, delete_command}) {
    command->add_option("--config", admin_flags.config_file, "YAML file");
    command->add_option("--state-dir", admin_flags.state_dir, "Directory of the gateway's tables");
  }

  app.add_subcommand("bench", "Load a server and measure it");
  app.add_subcommand("perplexity", "Score a text by a model");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (serve_command->parsed()) return serve(flags);
  if (role_command->parsed()) return gw::run_gateway_role(UniqueFd(kControlFd));
  if (tokenize_command->parsed()) {
    const auto config = effective_config(tokenize_flags);
    if (config) return gw::tokenize(*config, text);
    std::cerr << "sluice: " << config.error().detail << '\n';
    return 1;
  }
  if (check_command->parsed()) return gw::check_config(file);
  if (inspect_command->parsed()) {
    std::string name = "inspect";
    char* arguments[] = {name.data(), model.data(), nullptr};
    return run_worker_command(arguments);
  }
  if (hash_command->parsed()) return gw::hash_key();
  if (new_command->parsed()) return gw::make_key();
  if (admin_key_command->parsed()) {
    const Result<std::string> folder = tables_folder(admin_flags);
    if (!folder) {
      std::cerr << "sluice: " << folder.error().detail << '\n';
      return 1;
    }
    if (create_command->parsed()) return gw::create_admin_key(*folder);
    if (list_command->parsed()) return gw::list_admin_keys(*folder);
    return gw::delete_admin_key(*folder, public_id);
  }
  if (const std::optional<int> code = admin_commands.run()) return *code;
  return 1;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  return sluice::run(argc, argv);
}
