// config.json: good files, and a table of single changes that must each be refused naming the key.
#include "worker/model/model_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

namespace sluice::eng {
namespace {

using Fields = std::map<std::string, std::string>;

Fields good_fields() {
  return {{"architectures", "[\"LlamaForCausalLM\"]"},
          {"vocab_size", "32000"},
          {"hidden_size", "2048"},
          {"intermediate_size", "5632"},
          {"num_hidden_layers", "22"},
          {"num_attention_heads", "32"},
          {"num_key_value_heads", "4"},
          {"max_position_embeddings", "2048"},
          {"rms_norm_eps", "1e-05"},
          {"torch_dtype", "\"bfloat16\""},
          {"tie_word_embeddings", "false"}};
}

std::string text_of(const Fields& fields) {
  std::string text = "{";
  for (const auto& [key, value] : fields) {
    if (text.size() > 1) text += ",";
    text.append("\"").append(key).append("\":").append(value);
  }
  return text + "}";
}

Result<ModelConfig> with(const std::string& key, const std::string& value) {
  Fields fields = good_fields();
  if (value.empty()) {
    fields.erase(key);
  } else {
    fields[key] = value;
  }
  return parse_model_config(text_of(fields));
}

TEST(ModelConfig, ReadsAUsualFile) {
  const auto config = parse_model_config(text_of(good_fields()));
  ASSERT_TRUE(config.has_value()) << config.error().detail;
  EXPECT_EQ(config->vocab_size, 32000u);
  EXPECT_EQ(config->head_dim, 64u);
  EXPECT_EQ(config->q_width(), 2048u);
  EXPECT_EQ(config->kv_width(), 256u);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_EQ(config->rope_pairing, krn::RopePairing::half);
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_TRUE(config->eos_ids.empty());
}

TEST(ModelConfig, ReadsTheVariants) {
  EXPECT_EQ(with("eos_token_id", "2")->eos_ids, std::vector<TokenId>{2});
  EXPECT_EQ(with("eos_token_id", "[128, 7]")->eos_ids, (std::vector<TokenId>{128, 7}));
  EXPECT_EQ(with("num_key_value_heads", "")->num_kv_heads, 32u);
  EXPECT_EQ(with("num_key_value_heads", "null")->num_kv_heads, 32u);
  EXPECT_EQ(with("head_dim", "128")->q_width(), 4096u);
  EXPECT_EQ(with("rope_theta", "500000")->rope_theta, 500000.0);
  EXPECT_EQ(with("rope_parameters", R"({"rope_type":"default","rope_theta":1e6})")->rope_theta,
            1e6);
  EXPECT_EQ(with("rope_interleaved", "true")->rope_pairing, krn::RopePairing::interleaved);
  EXPECT_TRUE(with("tie_word_embeddings", "true")->tied_embeddings);
  EXPECT_TRUE(with("rope_scaling", "null").has_value());
  EXPECT_TRUE(with("sliding_window", "null").has_value());
  Fields fields = good_fields();
  fields.erase("architectures");
  fields["model_type"] = "\"llama\"";
  EXPECT_TRUE(parse_model_config(text_of(fields)).has_value());
}

TEST(ModelConfig, RefusesEveryValueOutOfRangeByKey) {
  const std::pair<const char*, const char*> rows[] = {
      {"architectures", "[\"GPT2LMHeadModel\"]"},
      {"architectures", "[]"},
      {"architectures", "\"LlamaForCausalLM\""},
      {"architectures", ""},
      {"vocab_size", ""},
      {"vocab_size", "0"},
      {"vocab_size", "-1"},
      {"vocab_size", "1048577"},
      {"vocab_size", "\"32000\""},
      {"vocab_size", "32000.5"},
      {"vocab_size", "18446744073709551615"},
      {"hidden_size", "65537"},
      {"hidden_size", "[]"},
      {"intermediate_size", "262145"},
      {"intermediate_size", "null"},
      {"num_hidden_layers", "0"},
      {"num_hidden_layers", "513"},
      {"num_attention_heads", "0"},
      {"num_attention_heads", "513"},
      {"num_attention_heads", "24"},
      {"num_key_value_heads", "5"},
      {"num_key_value_heads", "0"},
      {"num_key_value_heads", "64"},
      {"head_dim", "63"},
      {"head_dim", "258"},
      {"head_dim", "0"},
      {"max_position_embeddings", "0"},
      {"max_position_embeddings", "16777217"},
      {"rms_norm_eps", "-1e-9"},
      {"rms_norm_eps", "1"},
      {"rms_norm_eps", "\"small\""},
      {"rope_theta", "0"},
      {"rope_theta", "1e13"},
      {"rope_scaling", "[]"},
      {"rope_scaling", "{}"},
      {"rope_scaling", R"({"type":"yarn","factor":4})"},
      {"hidden_act", "\"gelu\""},
      {"attention_bias", "true"},
      {"attention_bias", "1"},
      {"mlp_bias", "true"},
      {"quantization_config", "{}"},
      {"sliding_window", "4096"},
      {"layer_types", "[]"},
      {"tie_word_embeddings", "0"},
      {"rope_interleaved", "\"no\""},
      {"eos_token_id", "32000"},
      {"eos_token_id", "[1, -1]"},
      {"eos_token_id", "\"</s>\""}};
  for (const auto& [key, value] : rows) {
    const auto config = with(key, value);
    ASSERT_FALSE(config.has_value()) << key << " " << value;
    EXPECT_EQ(config.error().code, Errc::bad_file);
    EXPECT_EQ(config.error().param, key) << value << ": " << config.error().detail;
  }
  EXPECT_EQ(with("rope_scaling", R"({"type":"linear","factor":0.5})").error().param, "factor");
}

Result<ModelConfig> with_all(std::initializer_list<std::pair<const char*, const char*>> changes) {
  Fields fields = good_fields();
  for (const auto& [key, value] : changes) {
    if (*value == 0) fields.erase(key);
    if (*value != 0) fields[key] = value;
  }
  return parse_model_config(text_of(fields));
}

TEST(ModelConfig, KnowsTheFamilyByName) {
  EXPECT_EQ(with("architectures", R"(["MistralForCausalLM"])")->architecture,
            Architecture::mistral);
  const auto qwen2 = with("architectures", R"(["Qwen2ForCausalLM"])");
  ASSERT_TRUE(qwen2.has_value()) << qwen2.error().detail;
  EXPECT_TRUE(qwen2->has_qkv_bias() && !qwen2->has_head_norms());
  const auto qwen3 =
      with_all({{"architectures", ""}, {"model_type", R"("qwen3")"}, {"head_dim", "128"}});
  ASSERT_TRUE(qwen3.has_value()) << qwen3.error().detail;
  EXPECT_TRUE(qwen3->has_head_norms() && !qwen3->has_qkv_bias());
  EXPECT_EQ(qwen3->q_width(), 4096u);
  // What the families' own files always say is not guessed.
  EXPECT_EQ(with("architectures", R"(["Qwen3ForCausalLM"])").error().param, "head_dim");
  EXPECT_EQ(with_all({{"architectures", R"(["Qwen2ForCausalLM"])"}, {"num_key_value_heads", ""}})
                .error()
                .param,
            "num_key_value_heads");
  EXPECT_EQ(with("architectures", R"(["Gemma2ForCausalLM"])").error().detail,
            "architectures names 'Gemma2ForCausalLM'; read are LlamaForCausalLM, "
            "MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM");
}

TEST(ModelConfig, SlidingWindows) {
  const char* const kMistral = R"(["MistralForCausalLM"])";
  const char* const kQwen2 = R"(["Qwen2ForCausalLM"])";
  EXPECT_EQ(with("architectures", kMistral)->sliding_window, 4096u) << "the family's own default";
  EXPECT_EQ(with_all({{"architectures", kMistral}, {"sliding_window", "null"}})->sliding_window,
            0u);
  EXPECT_EQ(with_all({{"architectures", kMistral}, {"sliding_window", "77"}})->window_of(0), 77u);
  EXPECT_EQ(with_all({{"architectures", kMistral}, {"sliding_window", "0"}}).error().param,
            "sliding_window");
  EXPECT_EQ(with_all({{"architectures", kQwen2}, {"sliding_window", "131072"}})->sliding_window, 0u)
      << "not without use_sliding_window";
  const auto upper = with_all({{"architectures", kQwen2},
                               {"sliding_window", "100"},
                               {"use_sliding_window", "true"},
                               {"max_window_layers", "21"}});
  ASSERT_TRUE(upper.has_value()) << upper.error().detail;
  EXPECT_EQ(upper->window_of(20), 0u);
  EXPECT_EQ(upper->window_of(21), 100u);
  EXPECT_EQ(with_all({{"architectures", kQwen2},
                      {"sliding_window", "100"},
                      {"use_sliding_window", "true"},
                      {"max_window_layers", "23"}})
                .error()
                .param,
            "max_window_layers");
  const auto typed = [&](const char* types) {
    return with_all({{"architectures", kMistral},
                     {"num_hidden_layers", "2"},
                     {"sliding_window", "9"},
                     {"layer_types", types}});
  };
  EXPECT_TRUE(typed(R"(["sliding_attention","sliding_attention"])").has_value());
  EXPECT_EQ(typed(R"(["sliding_attention","full_attention"])").error().param, "layer_types");
  EXPECT_EQ(typed(R"(["sliding_attention"])").error().param, "layer_types");
}

TEST(ModelConfig, RefusesWhatIsNoObject) {
  for (const char* text : {"", " ", "[]", "1", "{", "{\"a\":01}", "nul", "{}{}", "\xff"}) {
    EXPECT_FALSE(parse_model_config(text).has_value()) << text;
  }
  EXPECT_FALSE(parse_model_config(std::string(100000, '[')).has_value());
}

TEST(ModelConfig, LinearScalingStretchesEveryWave) {
  const auto plain = with("head_dim", "64");
  const auto scaled = with("rope_scaling", R"({"type":"linear","factor":4})");
  const auto a = rope_frequencies(*plain);
  const auto b = rope_frequencies(*scaled);
  ASSERT_EQ(a.size(), 32u);
  EXPECT_EQ(a[0], 1.0);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_DOUBLE_EQ(b[i] * 4, a[i]);
}

TEST(ModelConfig, Llama3ScalingKeepsShortWavesAndStretchesLongOnes) {
  const auto plain = rope_frequencies(*with("rope_theta", "500000"));
  Fields fields = good_fields();
  fields["rope_theta"] = "500000";
  fields["rope_scaling"] =
      R"({"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,)"
      R"("original_max_position_embeddings":8192})";
  const auto scaled = rope_frequencies(*parse_model_config(text_of(fields)));
  EXPECT_EQ(scaled.front(), plain.front());
  EXPECT_DOUBLE_EQ(scaled.back(), plain.back() / 8);
  bool blended = false;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 8 * (1 - 1e-12));
    blended = blended || (scaled[i] < plain[i] * 0.99 && scaled[i] > plain[i] / 7.9);
  }
  EXPECT_TRUE(blended);
}

}  // namespace
}  // namespace sluice::eng
