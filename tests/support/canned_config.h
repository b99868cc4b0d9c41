// A configuration whose only model is the canned one: what tests of everything but the model run
// on.
#pragma once

#include "config/config.h"

namespace sluice::test {

inline cfg::Model canned_model_config() {
  cfg::Model model;
  model.name = "canned";
  model.kind = cfg::ModelKind::canned;
  return model;
}

inline cfg::Config canned_config() {
  cfg::Config config;
  config.models = {canned_model_config()};
  return config;
}

}  // namespace sluice::test
