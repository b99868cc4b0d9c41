// GGUF files as models: every tensor lands in its place whatever it is stored as, quantized ones as
// their blocks say; keys and tensors that this engine can't serve are refused by name; every
// truncation and flipped bit leaves a living process; the digest is what sha256sum says.
#include "worker/model/gguf_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "kernels/half_float.h"
#include "kernels/pack.h"
#include "shared/random.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/model_files.h"
#include "worker/model/weights.h"

namespace sluice::test {
namespace {

constexpr std::uint32_t kF32 = 0, kQ4_0 = 2, kQ8_0 = 8, kQ4_K = 12, kQ5_K = 13, kQ6_K = 14,
                        kBF16 = 30;

struct Shape {
  std::uint32_t hidden = 4, inner = 3, heads = 2, kv_heads = 1, vocab = 5;
};

void add_keys(GgufBytes& file, const Shape& s) {
  file.text("general.architecture", "llama").u32("llama.block_count", 1);
  file.u32("llama.context_length", 64).u32("llama.embedding_length", s.hidden);
  file.u32("llama.feed_forward_length", s.inner).u32("llama.attention.head_count", s.heads);
  file.u32("llama.attention.head_count_kv", s.kv_heads);
  file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f).f32("llama.rope.freq_base", 10000);
}

// Elements are 1, 2, 3... over the whole file.
std::string counting(std::size_t count, float& next) {
  std::string data;
  for (std::size_t i = 0; i < count; ++i, next += 1) append_number(next, data);
  return data;
}

GgufBytes good(const Shape& s = {}) {
  GgufBytes file;
  add_keys(file, s);
  const std::uint64_t hidden = s.hidden, inner = s.inner, vocab = s.vocab,
                      kv = hidden / s.heads * s.kv_heads;
  const std::vector<std::pair<std::string, std::vector<std::uint64_t>>> shapes = {
      {"token_embd", {hidden, vocab}},    {"blk.0.attn_norm", {hidden}},
      {"blk.0.attn_q", {hidden, hidden}}, {"blk.0.attn_k", {hidden, kv}},
      {"blk.0.attn_v", {hidden, kv}},     {"blk.0.attn_output", {hidden, hidden}},
      {"blk.0.ffn_norm", {hidden}},       {"blk.0.ffn_gate", {hidden, inner}},
      {"blk.0.ffn_up", {hidden, inner}},  {"blk.0.ffn_down", {inner, hidden}},
      {"output_norm", {hidden}},          {"output", {hidden, vocab}}};
  float next = 1;
  for (const auto& [name, dims] : shapes) {
    const std::size_t count = dims[0] * (dims.size() == 2 ? dims[1] : 1);
    file.tensors.push_back({name + ".weight", dims, kF32, counting(count, next), {}});
  }
  return file;
}

GgufBytes::Tensor& tensor(GgufBytes& file, const std::string& name) {
  for (GgufBytes::Tensor& t : file.tensors)
    if (t.name == name + ".weight") return t;
  CHECK(false);
}

void replace_entry(GgufBytes& file, const std::string& key) {
  std::erase_if(file.entries, [&](const std::string& entry) {
    return std::string_view(entry).substr(8, key.size()) == key &&
           entry[0] == static_cast<char>(key.size());
  });
}

class GgufModel : public testing::Test {
 protected:
  std::string path() const { return directory_.path() + "/m.gguf"; }
  Result<eng::ModelWeights> load(const GgufBytes& file) {
    write_file(path(), file.bytes());
    return eng::load_weights(path());
  }
  std::string outcome(const GgufBytes& file) {
    const auto weights = load(file);
    return weights ? "loaded" : weights.error().detail;
  }

  TemporaryDirectory directory_;
};

float element(const krn::PackedMatrix& w, std::size_t row, std::size_t col) {
  std::vector<float> values(w.cols);
  krn::unpack_rows(w, row, 1, values.data());
  return values[col];
}

float element(const eng::FusedMatrix& w, std::size_t row, std::size_t col) {
  EXPECT_EQ(w.parts.size(), 1u);
  return element(w.parts.at(0), row, col);
}

TEST_F(GgufModel, EveryTensorLandsInItsPlace) {
  const auto weights = load(good());
  ASSERT_TRUE(weights.has_value()) << weights.error().detail;
  const eng::ModelConfig& c = weights->config;
  EXPECT_EQ(c.vocab_size, 5u);
  EXPECT_EQ(c.hidden_size, 4u);
  EXPECT_EQ(c.intermediate_size, 3u);
  EXPECT_EQ(c.num_layers, 1u);
  EXPECT_EQ(c.num_heads, 2u);
  EXPECT_EQ(c.num_kv_heads, 1u);
  EXPECT_EQ(c.head_dim, 2u);
  EXPECT_EQ(c.context_tokens, 64u);
  EXPECT_EQ(c.norm_eps, 1e-5f);
  EXPECT_EQ(c.rope_theta, 10000);
  EXPECT_EQ(c.rope_pairing, krn::RopePairing::interleaved);
  EXPECT_FALSE(c.tied_embeddings);
  const eng::LayerWeights& layer = weights->layers.at(0);
  EXPECT_EQ(static_cast<const float*>(weights->embedding)[19], 20.0f);
  EXPECT_EQ(layer.attention_norm[0], 21.0f);
  EXPECT_EQ(element(layer.qkv, 0, 0), 25.0f);           // q begins
  EXPECT_EQ(element(layer.qkv, 4, 1), 25.0f + 16 + 1);  // k
  EXPECT_EQ(element(layer.qkv, 7, 3), 25.0f + 31);      // v ends
  EXPECT_EQ(element(layer.attention_out, 3, 3), 72.0f);
  EXPECT_EQ(layer.mlp_norm[3], 76.0f);
  EXPECT_EQ(element(layer.gate_up, 2, 3), 88.0f);
  EXPECT_EQ(element(layer.gate_up, 3, 0), 89.0f);
  EXPECT_EQ(element(layer.down, 1, 0), 104.0f);
  EXPECT_EQ(weights->final_norm[0], 113.0f);
  EXPECT_EQ(element(weights->head, 4, 3), 136.0f);
  EXPECT_EQ(weights->num_tensors, 12u);
  EXPECT_EQ(weights->num_parameters, 136u);
  EXPECT_EQ(weights->format, "GGUF v3");
  EXPECT_EQ(weights->files, std::vector<std::string>{"m.gguf"});
}

TEST_F(GgufModel, TheDigestIsThatOfTheFile) {
  const GgufBytes file = good();
  EXPECT_EQ(load(file)->digest, eng::sha256_of(file.bytes()));
  GgufBytes longer = good();  // its header goes on behind the first prefix that is tried
  longer.text("long", std::string(3'000'000, 'x'));
  const auto weights = load(longer);
  ASSERT_TRUE(weights.has_value()) << weights.error().detail;
  EXPECT_EQ(weights->digest, eng::sha256_of(longer.bytes()));
  EXPECT_EQ(element(weights->head, 4, 3), 136.0f);
}

TEST_F(GgufModel, TiedWithoutAnOutputMatrix) {
  GgufBytes file = good();
  file.tensors.pop_back();
  const auto weights = load(file);
  ASSERT_TRUE(weights.has_value()) << weights.error().detail;
  EXPECT_TRUE(weights->config.tied_embeddings);
  EXPECT_EQ(element(weights->head, 4, 3), 20.0f);
}

// One type for each matrix, random blocks with moderate scales.
void quantize(GgufBytes& file, const std::string& name, std::uint32_t type, krn::BlockFormat format,
              std::uint32_t seed) {
  GgufBytes::Tensor& t = tensor(file, name);
  const krn::BlockShape shape = krn::block_shape(format);
  const std::size_t count = t.dims[0] * (t.dims.size() == 2 ? t.dims[1] : 1);
  t.type = type;
  t.data.assign(count / shape.num_elements * shape.bytes, '\0');
  for (std::uint32_t i = 0; i < t.data.size(); ++i)
    t.data[i] = static_cast<char>(random_bits({seed, 0, i}, 0));
  const std::size_t scale_at = format == krn::BlockFormat::q6_k ? 208 : 0;
  const bool has_min = format == krn::BlockFormat::q4_k || format == krn::BlockFormat::q5_k;
  for (std::size_t at = 0; at < t.data.size(); at += shape.bytes) {
    t.data[at + scale_at + 1] = 0x1c;  // about 2^-8
    if (has_min) t.data[at + 3] = 0x1a;
  }
}

std::vector<float> dequantized(const GgufBytes::Tensor& t, krn::BlockFormat format) {
  const krn::BlockShape shape = krn::block_shape(format);
  std::vector<float> values(t.data.size() / shape.bytes * shape.num_elements);
  krn::dequantize(format, t.data.data(), t.data.size() / shape.bytes, values.data());
  return values;
}

// Rows [first, ...) of a packed matrix are the values, rounded to binary16 when `halves`.
void expect_rows(const krn::PackedMatrix& w, std::size_t first, const std::vector<float>& values,
                 bool halves) {
  std::vector<float> got(values.size());
  krn::unpack_rows(w, first, values.size() / w.cols, got.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float want = halves ? krn::f16_to_float(krn::float_to_f16(values[i])) : values[i];
    ASSERT_EQ(got[i], want) << i;
  }
}

TEST_F(GgufModel, QuantizedMatricesStayWhatTheyAre) {
  const Shape shape{256, 512, 4, 2, 16};
  struct Row {
    std::uint32_t type;
    krn::BlockFormat format;
    krn::WeightType packed;
  };
  for (const Row& row : {Row{kQ8_0, krn::BlockFormat::q8_0, krn::WeightType::q8_0},
                         Row{kQ4_0, krn::BlockFormat::q4_0, krn::WeightType::q4_0},
                         Row{kQ4_K, krn::BlockFormat::q4_k, krn::WeightType::q4_k},
                         Row{kQ5_K, krn::BlockFormat::q5_k, krn::WeightType::q5_k},
                         Row{kQ6_K, krn::BlockFormat::q6_k, krn::WeightType::q6_k}}) {
    SCOPED_TRACE(row.type);
    GgufBytes file = good(shape);
    std::uint32_t seed = 0;
    for (const char* name :
         {"token_embd", "blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v", "blk.0.attn_output",
          "blk.0.ffn_gate", "blk.0.ffn_up", "blk.0.ffn_down", "output"})
      quantize(file, name, row.type, row.format, ++seed);
    const auto weights = load(file);
    ASSERT_TRUE(weights.has_value()) << weights.error().detail;
    const auto want = [&](const char* name) { return dequantized(tensor(file, name), row.format); };
    const eng::LayerWeights& layer = weights->layers.at(0);
    EXPECT_EQ(layer.qkv.parts.at(0).type, row.packed);
    expect_rows(layer.qkv.parts.at(0), 0, want("blk.0.attn_q"), false);
    expect_rows(layer.qkv.parts.at(0), 256, want("blk.0.attn_k"), false);
    expect_rows(layer.qkv.parts.at(0), 384, want("blk.0.attn_v"), false);
    expect_rows(layer.attention_out, 0, want("blk.0.attn_output"), false);
    expect_rows(layer.gate_up.parts.at(0), 512, want("blk.0.ffn_up"), false);
    expect_rows(layer.down, 0, want("blk.0.ffn_down"), false);
    expect_rows(weights->head, 0, want("output"), false);
    EXPECT_EQ(weights->embedding_type, krn::WeightType::f16);
    const auto* embedding = static_cast<const std::uint16_t*>(weights->embedding);
    EXPECT_EQ(embedding[700], krn::float_to_f16(want("token_embd")[700]));
    EXPECT_EQ(weights->num_dequantized, 1u);
    EXPECT_EQ(weights->num_tensors, 12u);
    EXPECT_EQ(weights->stored_types.at("F32"), 3u);
  }
}

TEST_F(GgufModel, InMixedFilesEachTensorStaysWhatItIs) {
  GgufBytes file = good({256, 512, 4, 2, 16});
  file.tensors.pop_back();  // tied: the embedding has two places
  quantize(file, "token_embd", kQ6_K, krn::BlockFormat::q6_k, 1);
  quantize(file, "blk.0.attn_q", kQ4_K, krn::BlockFormat::q4_k, 2);
  quantize(file, "blk.0.attn_k", kQ4_K, krn::BlockFormat::q4_k, 6);
  quantize(file, "blk.0.attn_v", kQ6_K, krn::BlockFormat::q6_k, 3);
  quantize(file, "blk.0.ffn_gate", kQ4_K, krn::BlockFormat::q4_k, 4);  // up stays F32
  GgufBytes::Tensor& down = tensor(file, "blk.0.ffn_down");
  down.type = kBF16;
  down.data.resize(down.data.size() / 2);
  const auto weights = load(file);
  ASSERT_TRUE(weights.has_value()) << weights.error().detail;
  const eng::LayerWeights& layer = weights->layers.at(0);
  const auto want = [&](const char* name, krn::BlockFormat format) {
    return dequantized(tensor(file, name), format);
  };
  ASSERT_EQ(layer.qkv.parts.size(), 2u) << "Q and K together, V apart";
  EXPECT_EQ(layer.qkv.rows(), 512u);
  EXPECT_EQ(layer.qkv.cols(), 256u);
  EXPECT_EQ(layer.qkv.parts[0].type, krn::WeightType::q4_k);
  expect_rows(layer.qkv.parts[0], 0, want("blk.0.attn_q", krn::BlockFormat::q4_k), false);
  expect_rows(layer.qkv.parts[0], 256, want("blk.0.attn_k", krn::BlockFormat::q4_k), false);
  EXPECT_EQ(layer.qkv.parts[1].type, krn::WeightType::q6_k);
  expect_rows(layer.qkv.parts[1], 0, want("blk.0.attn_v", krn::BlockFormat::q6_k), false);
  ASSERT_EQ(layer.gate_up.parts.size(), 2u);
  EXPECT_EQ(layer.gate_up.parts[0].type, krn::WeightType::q4_k);
  EXPECT_EQ(layer.gate_up.parts[1].type, krn::WeightType::f32);
  EXPECT_EQ(layer.down.type, krn::WeightType::bf16);
  EXPECT_EQ(layer.attention_out.type, krn::WeightType::f32);
  EXPECT_EQ(weights->head.type, krn::WeightType::q6_k);
  expect_rows(weights->head, 0, want("token_embd", krn::BlockFormat::q6_k), false);
  EXPECT_EQ(weights->embedding_type, krn::WeightType::f16);
  EXPECT_EQ(weights->num_dequantized, 1u);
}

TEST_F(GgufModel, WhatBinary16DoesNotHoldBecomesF32) {
  GgufBytes file = good({32, 64, 2, 1, 16});
  for (const char* name : {"token_embd", "output", "blk.0.ffn_down"})
    quantize(file, name, kQ8_0, krn::BlockFormat::q8_0, 7);
  const auto narrow = load(file);
  ASSERT_TRUE(narrow.has_value()) << narrow.error().detail;
  EXPECT_EQ(narrow->embedding_type, krn::WeightType::f16);

  std::string& data = tensor(file, "token_embd").data;
  data[34 * 5] = 0;
  data[34 * 5 + 1] = 0x7a;  // 2^15 * 1.5
  data[34 * 5 + 2] = 127;
  tensor(file, "output").data = data;
  const auto weights = load(file);
  ASSERT_TRUE(weights.has_value()) << weights.error().detail;
  EXPECT_EQ(weights->embedding_type, krn::WeightType::f32);
  EXPECT_EQ(static_cast<const float*>(weights->embedding)[5 * 32], 49152.0f * 127);
  EXPECT_EQ(weights->head.type, krn::WeightType::q8_0) << "its scales are binary16 as they are";
  EXPECT_EQ(element(weights->head, 5, 0), 49152.0f * 127);
  EXPECT_EQ(weights->digest, eng::sha256_of(file.bytes()));

  data[34 * 5 + 1] = 0x7c;  // an infinity
  EXPECT_EQ(outcome(file),
            "m.gguf: tensor 'token_embd.weight' holds values that are not finite, or too large for "
            "its type");
  data[34 * 5 + 1] = 0x1c;
  tensor(file, "blk.0.ffn_down").data[34 * 9 + 1] = 0x7e;  // a NaN in what is not widened
  EXPECT_EQ(outcome(file),
            "m.gguf: tensor 'blk.0.ffn_down.weight' holds values that are not finite, or too large "
            "for its type");
}

TEST_F(GgufModel, RopeDivisorsStretchTheFrequencies) {
  GgufBytes file = good({16, 8, 2, 1, 5});
  std::string divisors;
  for (const float divisor : {1.0f, 2.0f, 4.0f, 8.0f}) append_number(divisor, divisors);
  file.tensors.push_back({"rope_freqs.weight", {4}, kF32, divisors, {}});
  const auto weights = load(file);
  ASSERT_TRUE(weights.has_value()) << weights.error().detail;
  eng::ModelConfig plain = weights->config;
  plain.rope_divisors.clear();
  const auto a = eng::rope_frequencies(plain);
  const auto b = eng::rope_frequencies(weights->config);
  ASSERT_EQ(b.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(b[i], a[i] / std::exp2(static_cast<double>(i)));

  for (const float wrong : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
    std::memcpy(file.tensors.back().data.data() + 8, &wrong, 4);
    EXPECT_EQ(outcome(file), "m.gguf: tensor 'rope_freqs.weight' must hold numbers above 0");
  }
  file.tensors.back().dims = {3};
  file.tensors.back().data.resize(12);
  EXPECT_EQ(outcome(file).substr(0, 46), "m.gguf: tensor 'rope_freqs.weight' has shape [");
}

TEST_F(GgufModel, ASlidingWindowInSomeLayers) {
  GgufBytes file = good();
  file.u32("llama.attention.sliding_window", 8);
  EXPECT_EQ(load(file)->config.window_of(0), 8u);
  GgufBytes last = file;
  last.numbers<std::uint8_t>("llama.attention.sliding_window_pattern", GgufValueType::boolean, {0});
  EXPECT_EQ(load(last)->config.window_of(0), 0u);
  for (const std::vector<std::uint8_t>& wrong :
       {std::vector<std::uint8_t>{2}, std::vector<std::uint8_t>{0, 1},
        std::vector<std::uint8_t>{}}) {
    GgufBytes bad = file;
    bad.numbers("llama.attention.sliding_window_pattern", GgufValueType::boolean, wrong);
    EXPECT_EQ(outcome(bad).substr(0, 60),
              "m.gguf: key 'llama.attention.sliding_window_pattern' must be");
  }
}

// The tensors beyond Llama's, each in its place; without one of them the file is refused.
TEST_F(GgufModel, Qwen2HasBiasesAndQwen3NormsOfHeads) {
  const auto of = [](const std::string& architecture) {
    GgufBytes file = good();
    for (std::string& entry : file.entries) {
      for (std::size_t at = entry.find("llama"); at != std::string::npos; at = entry.find("llama"))
        entry.replace(at, 5, architecture);  // as long
    }
    return file;
  };
  float next = 200;
  GgufBytes qwen2 = of("qwen2");
  EXPECT_EQ(outcome(qwen2), "m.gguf: tensor 'blk.0.attn_k.bias' is missing");
  for (const auto& [name, size] : {std::pair("attn_q", 4), {"attn_k", 2}, {"attn_v", 2}}) {
    const auto count = static_cast<std::uint64_t>(size);
    qwen2.tensors.push_back(
        {"blk.0." + std::string(name) + ".bias", {count}, kF32, counting(count, next), {}});
  }
  const auto biased = load(qwen2);
  ASSERT_TRUE(biased.has_value()) << biased.error().detail;
  EXPECT_EQ(biased->config.rope_pairing, krn::RopePairing::half);
  for (std::size_t i = 0; i < 8; ++i)
    EXPECT_EQ(biased->layers[0].qkv_bias[i], 200.0f + static_cast<float>(i));
  EXPECT_EQ(biased->layers[0].q_norm, nullptr);

  GgufBytes qwen3 = of("qwen3");
  EXPECT_EQ(outcome(qwen3), "m.gguf: tensor 'blk.0.attn_k_norm.weight' is missing");
  for (const char* name : {"attn_q_norm", "attn_k_norm"})
    qwen3.tensors.push_back(
        {"blk.0." + std::string(name) + ".weight", {2}, kF32, counting(2, next), {}});
  const auto normed = load(qwen3);
  ASSERT_TRUE(normed.has_value()) << normed.error().detail;
  EXPECT_EQ(normed->layers[0].q_norm[0], 208.0f);
  EXPECT_EQ(normed->layers[0].k_norm[1], 211.0f);
  EXPECT_EQ(normed->layers[0].qkv_bias, nullptr);
}

TEST_F(GgufModel, LinearRopeScaling) {
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    GgufBytes file = good();
    file.f32(key, 4);
    const auto weights = load(file);
    ASSERT_TRUE(weights.has_value()) << weights.error().detail;
    EXPECT_EQ(weights->config.rope_scaling.kind, eng::RopeScalingKind::linear);
    EXPECT_EQ(weights->config.rope_scaling.factor, 4);
    file.text("llama.rope.scaling.type", "none");
    EXPECT_EQ(load(file)->config.rope_scaling.kind, eng::RopeScalingKind::none);
  }
}

TEST_F(GgufModel, EndIdsComeFromTheTokenizersKeys) {
  GgufBytes file = good();
  file.u32("tokenizer.ggml.eos_token_id", 2).u32("tokenizer.ggml.eot_token_id", 4);
  file.u32("tokenizer.ggml.eom_token_id", 2);
  EXPECT_EQ(load(file)->config.eos_ids, (std::vector<TokenId>{2, 4}));
}

struct Change {
  std::function<void(GgufBytes&)> make;
  const char* answer;  // behind "m.gguf: "; its beginning
};

TEST_F(GgufModel, RefusesWhatItCanNotServeByName) {
  const auto with = [](const char* key, std::uint32_t value) {
    return [=](GgufBytes& f) {
      replace_entry(f, key);
      f.u32(key, value);
    };
  };
  const auto without = [](const char* key) { return [=](GgufBytes& f) { replace_entry(f, key); }; };
  const auto with_text = [](const char* key, const char* value) {
    return [=](GgufBytes& f) {
      replace_entry(f, key);
      f.text(key, value);
    };
  };
  const std::vector<Change> changes = {
      {with_text("general.architecture", "gpt-oss"),
       "key 'general.architecture' names 'gpt-oss'; 'llama', 'qwen2' and 'qwen3' can be served"},
      {with_text("general.architecture", "qwen2"), "key 'qwen2.embedding_length' is missing"},
      {without("general.architecture"), "key 'general.architecture' is missing"},
      {with("general.architecture", 1), "key 'general.architecture' is missing or not a text"},
      {with("llama.block_count", 0), "key 'llama.block_count' must be an integer from 1 to 512"},
      {with("llama.block_count", 0xffffffff), "key 'llama.block_count' must be"},
      {without("llama.block_count"), "key 'llama.block_count' is missing"},
      {with("llama.block_count", 2), "tensor 'blk.1.attn_k.weight' is missing"},
      {with_text("llama.embedding_length", "4"), "key 'llama.embedding_length' must be"},
      {with("llama.embedding_length", 1u << 31), "key 'llama.embedding_length' must be"},
      {with("llama.embedding_length", 8), "tensor 'token_embd.weight' has shape [5, 4]"},
      {with("llama.feed_forward_length", 7), "tensor 'blk.0.ffn_gate.weight' has shape [3, 4]"},
      {[](GgufBytes& f) {
         replace_entry(f, "llama.feed_forward_length");
         f.integers("llama.feed_forward_length", {3});
       },
       "key 'llama.feed_forward_length' must be an integer"},
      {with("llama.attention.head_count", 3),
       "key 'llama.attention.head_count' must divide embedding_length"},
      {with("llama.attention.head_count_kv", 4),
       "key 'llama.attention.head_count_kv' must divide attention.head_count"},
      {with("llama.attention.head_count_kv", 0), "key 'llama.attention.head_count_kv' must be"},
      {with("llama.attention.key_length", 3), "key 'llama.attention.key_length' must be even"},
      {with("llama.attention.key_length", 512), "key 'llama.attention.key_length' must be an"},
      {with("llama.attention.value_length", 4),
       "key 'llama.attention.value_length' must be the length of a head, 2"},
      {with("llama.rope.dimension_count", 1),
       "key 'llama.rope.dimension_count' must be the length"},
      {with("llama.context_length", 0), "key 'llama.context_length' must be"},
      {without("llama.attention.layer_norm_rms_epsilon"),
       "key 'llama.attention.layer_norm_rms_epsilon' is missing"},
      {with("llama.attention.layer_norm_rms_epsilon", 1),
       "key 'llama.attention.layer_norm_rms_epsilon' must be a number"},
      {with("llama.rope.freq_base", 0), "key 'llama.rope.freq_base' must be a number"},
      {[](GgufBytes& f) {
         replace_entry(f, "llama.rope.freq_base");
         f.f32("llama.rope.freq_base", std::numeric_limits<float>::quiet_NaN());
       },
       "key 'llama.rope.freq_base' must be a number"},
      {with_text("llama.rope.scaling.type", "yarn"),
       "key 'llama.rope.scaling.type' must be 'none' or 'linear', not 'yarn'"},
      {with("llama.rope.scaling.type", 1), "key 'llama.rope.scaling.type' must be 'none'"},
      {[](GgufBytes& f) { f.f32("llama.rope.scaling.factor", 0.5f); },
       "key 'llama.rope.scaling.factor' must be at least 1"},
      {with("llama.expert_count", 8), "key 'llama.expert_count' is not supported"},
      {with("llama.attention.sliding_window", 1u << 25),
       "key 'llama.attention.sliding_window' must be a number"},
      {[](GgufBytes& f) { f.f32("llama.attention.sliding_window", 2.5f); },
       "key 'llama.attention.sliding_window' must be an integer"},
      {[](GgufBytes& f) {
         f.u32("llama.attention.sliding_window", 8);
         f.integers("llama.attention.sliding_window_pattern", {1});
       },
       "key 'llama.attention.sliding_window_pattern' must be a list"},
      {[](GgufBytes& f) { f.flag("llama.attention.causal", false); },
       "key 'llama.attention.causal' must be true"},
      {with("split.count", 3), "key 'split.count' says that the model lies in several files"},
      {with("tokenizer.ggml.eos_token_id", 5), "key 'tokenizer.ggml.eos_token_id' must be"},
      {[](GgufBytes& f) { f.i32("tokenizer.ggml.eos_token_id", -1); },
       "key 'tokenizer.ggml.eos_token_id' must be a token id below 5"},
      {[](GgufBytes& f) { f.tensors.erase(f.tensors.begin()); },
       "tensor 'token_embd.weight' is missing"},
      {[](GgufBytes& f) { f.tensors[0].dims = {20}; }, "tensor 'token_embd.weight' must have"},
      {[](GgufBytes& f) { f.tensors.erase(f.tensors.begin() + 4); },
       "tensor 'blk.0.attn_v.weight' is missing"},
      {[](GgufBytes& f) { f.tensors[3].name = "blk.0.attn_k.bias"; },
       "tensor 'blk.0.attn_k.bias' does not belong to this architecture"},
      {[](GgufBytes& f) {
         f.tensors[2].dims = {2, 8};
       },
       "tensor 'blk.0.attn_q.weight' has shape [8, 2], the configuration needs [4, 4]"},
      {[](GgufBytes& f) {
         f.tensors[2].dims = {4, 2, 2};
       },
       "tensor 'blk.0.attn_q.weight' has shape [2, 2, 4]"},
      {[](GgufBytes& f) { f.tensors[2].type = 26; },
       "tensor 'blk.0.attn_q.weight' is of type I32; read are F32, F16, BF16, Q8_0, Q4_0, Q4_K, "
       "Q5_K and Q6_K"},
  };
  for (const Change& change : changes) {
    GgufBytes file = good();
    change.make(file);
    const std::string want = std::string("m.gguf: ") + change.answer;
    EXPECT_EQ(outcome(file).substr(0, want.size()), want);
  }
  GgufBytes quantized = good({32, 32, 2, 1, 5});
  quantize(quantized, "output", kQ8_0, krn::BlockFormat::q8_0, 1);
  quantized.u32("general.quantization_version", 2);
  EXPECT_EQ(outcome(quantized), "loaded");
  replace_entry(quantized, "general.quantization_version");
  quantized.u32("general.quantization_version", 3);
  EXPECT_EQ(outcome(quantized), "m.gguf: key 'general.quantization_version' must be 2");
}

TEST_F(GgufModel, AFileOfAnotherKindIsRefused) {
  write_file(path(), "not a model at all");
  EXPECT_EQ(eng::load_weights(path()).error().detail, "m.gguf: is not a GGUF file");
  write_file(path(), "");
  EXPECT_NE(eng::load_weights(path()).error().detail.find("m.gguf: "), std::string::npos);
}

TEST_F(GgufModel, EveryTruncationIsRefused) {
  const std::string whole = good().bytes();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    write_file(path(), whole.substr(0, length));
    const auto weights = eng::load_weights(path());
    ASSERT_FALSE(weights.has_value()) << length;
    ASSERT_EQ(weights.error().detail.substr(0, 8), "m.gguf: ");
  }
}

TEST_F(GgufModel, EveryFlippedHeaderBitIsRefusedOrHarmless) {
  const std::string whole = good().bytes();
  std::size_t refused = 0;
  const std::size_t header_bytes = whole.size() - 12 * 80;
  for (std::size_t bit = 0; bit < header_bytes * 8; bit += 3) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    write_file(path(), damaged);
    refused += eng::load_weights(path()) ? 0 : 1;
  }
  EXPECT_GT(refused, header_bytes * 8 / 3 * 9 / 10);
}

}  // namespace
}  // namespace sluice::test
