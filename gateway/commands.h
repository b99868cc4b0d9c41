// The commands of `sluice` that do one thing and end: text in, text out, an exit code.
#pragma once

#include <string>

#include "config/config.h"

namespace sluice::gw {

// The effective configuration on stdout, secrets masked; 1 with line, key and range on stderr.
int check_config(const std::string& file);

// Ids and pieces of `text` ("-": of stdin), one token a line.
int tokenize(const cfg::Config& config, const std::string& text);

// The SHA-256 of the key on stdin's first line, as the configuration file wants it.
int hash_key();

// A fresh key and its SHA-256.
int make_key();

}  // namespace sluice::gw
