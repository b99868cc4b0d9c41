// Model directories as hostile input: each file missing, cut short or changed is refused with file,
// tensor and reason; every single byte of a small model flipped and every truncation leaves a
// living process; the digest is what sha256sum says.
#include "worker/model/weights.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "kernels/kernel_table.h"
#include "kernels/pack.h"
#include "tests/support/model_files.h"
#include "worker/model/tensor_loader.h"

namespace sluice::test {
namespace {

constexpr char kConfig[] =
    R"({"architectures":["LlamaForCausalLM"],"vocab_size":5,"hidden_size":4,"intermediate_size":3,)"
    R"("num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,)"
    R"("max_position_embeddings":64,"rms_norm_eps":1e-5,"tie_word_embeddings":false})";

struct Tensor {
  std::string name;
  std::vector<std::size_t> shape;
  std::string dtype = "F32";
};

std::vector<Tensor> good_tensors() {
  const std::string p = "model.layers.0.";
  return {{"model.embed_tokens.weight", {5, 4}},
          {p + "input_layernorm.weight", {4}},
          {p + "self_attn.q_proj.weight", {4, 4}},
          {p + "self_attn.k_proj.weight", {2, 4}},
          {p + "self_attn.v_proj.weight", {2, 4}},
          {p + "self_attn.o_proj.weight", {4, 4}},
          {p + "post_attention_layernorm.weight", {4}},
          {p + "mlp.gate_proj.weight", {3, 4}},
          {p + "mlp.up_proj.weight", {3, 4}},
          {p + "mlp.down_proj.weight", {4, 3}},
          {"model.norm.weight", {4}},
          {"lm_head.weight", {5, 4}}};
}

// Elements are 1, 2, 3... over the whole file, exact in every dtype used here.
std::string file_of(const std::vector<Tensor>& tensors) {
  std::string header = "{";
  std::string data;
  float next = 1;
  for (const Tensor& tensor : tensors) {
    const std::size_t begin = data.size();
    std::size_t elements = 1;
    std::string shape;
    for (const std::size_t size : tensor.shape) {
      elements *= size;
      shape.append(shape.empty() ? "" : ",").append(std::to_string(size));
    }
    for (std::size_t i = 0; i < elements; ++i, next += 1) {
      char bytes[4];
      std::memcpy(bytes, &next, 4);
      // A bfloat16 is the upper half of a float.
      if (tensor.dtype == "F32") data.append(bytes, 4);
      if (tensor.dtype == "BF16" || tensor.dtype == "I16") data.append(bytes + 2, 2);
    }
    if (header.size() > 1) header += ",";
    header.append("\"").append(tensor.name).append("\":{\"dtype\":\"").append(tensor.dtype);
    header.append("\",\"shape\":[").append(shape).append("],\"data_offsets\":[");
    header.append(std::to_string(begin))
        .append(",")
        .append(std::to_string(data.size()))
        .append("]}");
  }
  return safetensors_bytes(header + "}", data);
}

class Weights : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& bytes) {
    write_file(directory_.path() + "/" + name, bytes);
  }
  void write_good() {
    write("config.json", kConfig);
    write("model.safetensors", file_of(good_tensors()));
  }
  // The error's text; "loaded" without one.
  std::string outcome() {
    const auto weights = eng::load_weights(directory_.path());
    return weights ? "loaded" : weights.error().detail;
  }
  std::string outcome_of(const std::vector<Tensor>& tensors) {
    write("model.safetensors", file_of(tensors));
    return outcome();
  }

  TemporaryDirectory directory_;
};

float packed_element(const krn::PackedMatrix& w, std::size_t row, std::size_t col) {
  std::vector<float> x(w.cols, 0.0f);
  std::vector<float> y(w.rows);
  x[col] = 1;
  krn::find_kernels("scalar")->matmul({w, x.data(), w.cols, 1, y.data(), w.rows}, 0,
                                      krn::num_panels(w.rows));
  return y[row];
}

float packed_element(const eng::FusedMatrix& w, std::size_t row, std::size_t col) {
  EXPECT_EQ(w.parts.size(), 1u);
  return packed_element(w.parts.at(0), row, col);
}

TEST_F(Weights, EveryTensorLandsInItsPlace) {
  write_good();
  const auto weights = eng::load_weights(directory_.path());
  ASSERT_TRUE(weights.has_value()) << weights.error().detail;
  const eng::LayerWeights& layer = weights->layers.at(0);
  EXPECT_EQ(weights->num_tensors, 12u);
  EXPECT_EQ(weights->num_parameters, 136u);
  EXPECT_EQ(static_cast<const float*>(weights->embedding)[19], 20.0f);
  EXPECT_EQ(layer.attention_norm[0], 21.0f);
  EXPECT_EQ(packed_element(layer.qkv, 0, 0), 25.0f);           // q begins
  EXPECT_EQ(packed_element(layer.qkv, 4, 1), 25.0f + 16 + 1);  // k
  EXPECT_EQ(packed_element(layer.qkv, 7, 3), 25.0f + 31);      // v ends
  EXPECT_EQ(packed_element(layer.attention_out, 3, 3), 72.0f);
  EXPECT_EQ(layer.mlp_norm[3], 76.0f);
  EXPECT_EQ(packed_element(layer.gate_up, 2, 3), 88.0f);
  EXPECT_EQ(packed_element(layer.gate_up, 3, 0), 89.0f);
  EXPECT_EQ(packed_element(layer.down, 1, 0), 104.0f);
  EXPECT_EQ(weights->final_norm[0], 113.0f);
  EXPECT_EQ(packed_element(weights->head, 4, 3), 136.0f);
}

TEST_F(Weights, MixedTypesOfAFusedMatrixBecomeFloat) {
  write("config.json", kConfig);
  std::vector<Tensor> tensors = good_tensors();
  for (Tensor& tensor : tensors) tensor.dtype = "BF16";
  tensors[3].dtype = "F32";  // k of q, k, v
  write("model.safetensors", file_of(tensors));
  const auto weights = eng::load_weights(directory_.path());
  ASSERT_TRUE(weights.has_value()) << weights.error().detail;
  EXPECT_EQ(weights->layers[0].qkv.parts.at(0).type, krn::WeightType::f32);
  EXPECT_EQ(weights->layers[0].gate_up.parts.at(0).type, krn::WeightType::bf16);
  EXPECT_EQ(packed_element(weights->layers[0].qkv, 4, 1), 25.0f + 16 + 1);
  EXPECT_EQ(packed_element(weights->layers[0].qkv, 7, 3), 25.0f + 31);
  EXPECT_EQ(weights->layers[0].attention_norm[0], 21.0f);
}

// Several pieces, types and placements: the same memory whatever the threads; progress counts all.
TEST_F(Weights, PackersChangeNoByte) {
  RandomModel model;
  model.vocab_size = 20000;  // 10 MB of embedding
  write_random_model(directory_.path(), model);
  std::uint64_t last = 0, total = 0;
  std::size_t calls = 0;
  const auto load = [&](std::size_t threads, eng::MatrixForm form) {
    eng::LoadOptions options{form, threads, [&](std::uint64_t bytes, std::uint64_t all) {
                               EXPECT_GT(bytes, last);
                               EXPECT_LE(bytes, all);
                               last = bytes;
                               total = all;
                               ++calls;
                             }};
    auto weights = eng::load_weights(directory_.path(), options);
    EXPECT_TRUE(weights.has_value()) << weights.error().detail;
    EXPECT_GT(calls, 20u);
    EXPECT_GT(last, total - 100'000) << "all but headers";
    last = 0;
    return std::move(*weights);
  };
  for (const eng::MatrixForm form : {eng::MatrixForm::stored, eng::MatrixForm::int8}) {
    const eng::ModelWeights alone = load(1, form);
    for (const std::size_t threads : {2u, 5u}) {
      const eng::ModelWeights shared = load(threads, form);
      EXPECT_EQ(shared.digest, alone.digest);
      ASSERT_EQ(shared.memory.bytes(), alone.memory.bytes());
      EXPECT_EQ(std::memcmp(shared.memory.data(), alone.memory.data(), alone.memory.bytes()), 0);
    }
  }
}

TEST_F(Weights, OfSeveralErrorsTheFirstCountsWhateverTheThreads) {
  RandomModel model;
  write_random_model(directory_.path(), model);
  std::string bytes = read_file(directory_.path() + "/model.safetensors");
  bytes.resize(bytes.size() - 1000);                               // the last tensor ends early
  for (std::size_t at = 150'000; at < bytes.size(); at += 1000) {  // NaN as bfloat16, from then on
    const std::uint16_t nan = 0x7fff;
    std::memcpy(bytes.data() + at / 2 * 2, &nan, 2);
  }
  // The header must fit the file for its tensors to be read at all.
  bytes.resize(bytes.size() + 1000, '\0');
  write("model.safetensors", bytes);
  const auto error_of = [&](std::size_t threads) {
    const auto weights = eng::load_weights(directory_.path(), {eng::MatrixForm::int8, threads, {}});
    return weights ? "loaded" : weights.error().detail;
  };
  const std::string want =
      "model.safetensors: tensor 'model.layers.0.self_attn.k_proj.weight' holds values that are "
      "not finite, or too large for its type";
  for (int time = 0; time < 5; ++time)
    for (const std::size_t threads : {1u, 2u, 4u}) EXPECT_EQ(error_of(threads), want);
}

// A file of 3 MB: two tensors that are used, one that is not, and what lies between them.
class Loader : public testing::Test {
 protected:
  static constexpr std::uint64_t kBegin = 100, kRows = 700, kCols = 1000;

  Loader() {
    const std::uint64_t matrix = kRows * kCols * 4;
    shard_ = {"file", {kBegin, {}}};
    shard_.table.tensors = {
        {"matrix", eng::Dtype::f32, "F32", {kRows, kCols}, 50, matrix},
        {"unused", eng::Dtype::f32, "F32", {9, kCols}, 50 + matrix, 9 * kCols * 4},
        {"vector", eng::Dtype::f32, "F32", {kCols}, 90 + matrix + 9 * kCols * 4, kCols * 4}};
    plan_.regions = {
        {eng::Region::Kind::rows, krn::WeightType::f32, kRows, kCols, 0, matrix},
        {eng::Region::Kind::vector, krn::WeightType::f32, 1, kCols, matrix, kCols * 4}};
    plan_.bytes = matrix + kCols * 4;
    plan_.tensors["matrix"].placements = {{0, 0}};
    plan_.tensors["vector"].placements = {{1, 0}};
    const eng::TensorInfo& last = shard_.table.tensors.back();
    bytes_.resize(kBegin + last.offset + last.bytes + 77);
    for (std::size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i * 7 % 127);
    write_file(directory_.path() + "/file", bytes_);
  }
  eng::ModelFile open() {
    return std::move(eng::ModelFile::open(directory_.path(), "file").value());
  }
  std::string tensor(std::size_t index) const {
    const eng::TensorInfo& info = shard_.table.tensors[index];
    return bytes_.substr(kBegin + info.offset, info.bytes);
  }

  TemporaryDirectory directory_;
  eng::Shard shard_;
  eng::WeightPlan plan_;
  std::string bytes_;
};

TEST_F(Loader, DigestsAllAndPlacesWhatIsUsedWhateverTheThreads) {
  for (const std::size_t threads : {1u, 2u, 3u, 16u}) {
    std::string memory(plan_.bytes, '\0');
    eng::TensorLoader loader(plan_, reinterpret_cast<std::uint8_t*>(memory.data()), threads);
    for (int again = 0; again < 3; ++again) {  // one file after another
      eng::ModelFile file = open();
      std::uint64_t read = 0;
      const auto loaded =
          loader.read_tensors(file, shard_, [&](std::uint64_t more) { read += more; });
      ASSERT_TRUE(loaded.has_value()) << loaded.error().detail;
      EXPECT_EQ(read, bytes_.size());
      EXPECT_EQ(file.finish(), eng::sha256_of(bytes_));
      EXPECT_TRUE(memory == tensor(0) + tensor(2)) << threads;
    }
  }
}

TEST_F(Loader, AFileThatWasCutShortSinceItWasOpenedIsRefused) {
  for (const std::size_t threads : {1u, 2u, 16u}) {
    for (const std::uint64_t left : {std::uint64_t{0}, kBegin + 2'000'000, bytes_.size() - 1}) {
      write_file(directory_.path() + "/file", bytes_);
      eng::ModelFile file = open();
      std::filesystem::resize_file(directory_.path() + "/file", left);
      std::string memory(plan_.bytes, '\0');
      eng::TensorLoader loader(plan_, reinterpret_cast<std::uint8_t*>(memory.data()), threads);
      const auto loaded = loader.read_tensors(file, shard_, [](std::uint64_t) {});
      ASSERT_FALSE(loaded.has_value());
      const std::string want = "file: ends at byte " + std::to_string(left) + ", expected ";
      EXPECT_EQ(loaded.error().detail.substr(0, want.size()), want);
    }
  }
}

TEST_F(Weights, QuantizesOnLoadWhatIsStoredAsFloats) {
  RandomModel model;
  model.dtype = "F32";
  model.num_layers = 1;
  model.intermediate_size = 72;  // no whole blocks: down stays
  write_random_model(directory_.path(), model);
  const auto stored = eng::load_weights(directory_.path());
  ASSERT_TRUE(stored.has_value());
  struct Row {
    eng::MatrixForm form;
    krn::WeightType layer, head;
    float
        bound;  // of an error, as a share of a block's largest value: half a step and d's rounding
  };
  for (const Row& row :
       {Row{eng::MatrixForm::int8, krn::WeightType::q8_0, krn::WeightType::q8_0, 0.0045f},
        Row{eng::MatrixForm::int4, krn::WeightType::q4_0, krn::WeightType::q8_0, 0.126f}}) {
    const auto weights = eng::load_weights(directory_.path(), {row.form, 1, {}});
    ASSERT_TRUE(weights.has_value()) << weights.error().detail;
    const eng::LayerWeights& layer = weights->layers.at(0);
    EXPECT_EQ(layer.qkv.parts.at(0).type, row.layer);
    EXPECT_EQ(layer.attention_out.type, row.layer);
    EXPECT_EQ(layer.gate_up.parts.at(0).type, row.layer);
    EXPECT_EQ(layer.down.type, krn::WeightType::f32);
    EXPECT_EQ(weights->head.type, row.head);
    EXPECT_EQ(weights->embedding_type, krn::WeightType::f32) << "tied: the head alone is quantized";
    EXPECT_EQ(weights->digest, stored->digest);
    std::vector<float> got(256), want(256);
    for (const std::size_t r : {0u, 100u, 511u}) {
      krn::unpack_rows(layer.qkv.parts.at(0), r, 1, got.data());
      krn::unpack_rows(stored->layers.at(0).qkv.parts.at(0), r, 1, want.data());
      for (std::size_t i = 0; i < 256; ++i) {
        float largest = 0;
        for (std::size_t k = i / 32 * 32; k < i / 32 * 32 + 32; ++k)
          largest = std::max(largest, std::abs(want[k]));
        ASSERT_LE(std::abs(got[i] - want[i]), row.bound * largest) << r << " " << i;
      }
    }
  }
}

TEST_F(Weights, SaysFileTensorAndReason) {
  EXPECT_EQ(outcome(), "config.json: cannot be opened: No such file or directory");
  write("config.json", "{}");
  EXPECT_EQ(outcome().substr(0, 27), "config.json: architectures ");
  write("config.json", kConfig);
  EXPECT_EQ(outcome(), "model.safetensors: cannot be opened: No such file or directory");
  write("model.safetensors", "");
  EXPECT_EQ(outcome(), "model.safetensors: ends at byte 0, expected 8");
  write("model.safetensors", std::string(8, '\xff'));
  EXPECT_EQ(outcome().substr(0, 33), "model.safetensors: header length ");

  std::vector<Tensor> tensors = good_tensors();
  tensors.erase(tensors.begin() + 4);
  EXPECT_EQ(outcome_of(tensors),
            "model.safetensors: tensor 'model.layers.0.self_attn.v_proj.weight' is missing");
  tensors = good_tensors();
  tensors[7].shape = {4, 3};
  EXPECT_EQ(outcome_of(tensors),
            "model.safetensors: tensor 'model.layers.0.mlp.gate_proj.weight' has "
            "shape [4, 3], the configuration needs [3, 4]");
  tensors = good_tensors();
  tensors[7].dtype = "I16";
  EXPECT_EQ(outcome_of(tensors),
            "model.safetensors: tensor 'model.layers.0.mlp.gate_proj.weight' is of type I16; "
            "read are F32, F16 and BF16");
  tensors = good_tensors();
  tensors.push_back({"model.layers.0.self_attn.q_proj.bias", {4}});
  EXPECT_EQ(outcome_of(tensors),
            "model.safetensors: tensor 'model.layers.0.self_attn.q_proj.bias' does "
            "not belong to this architecture");
  tensors = good_tensors();
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {1}});
  EXPECT_EQ(outcome_of(tensors),
            "loaded");  // old exports have it; it follows from the configuration
}

TEST_F(Weights, ADirectoryOrFifoInPlaceOfAFileIsRefused) {
  std::filesystem::create_directory(directory_.path() + "/config.json");
  EXPECT_EQ(outcome(), "config.json: is not a regular file");
  std::filesystem::remove(directory_.path() + "/config.json");
  ASSERT_EQ(::mkfifo((directory_.path() + "/config.json").c_str(), 0600), 0);
  EXPECT_EQ(outcome(), "config.json: is not a regular file");
}

TEST_F(Weights, ShardsMustAgreeWithTheirIndex) {
  write("config.json", kConfig);
  std::vector<Tensor> tensors = good_tensors();
  const std::vector<Tensor> first(tensors.begin(), tensors.begin() + 6);
  const std::vector<Tensor> second(tensors.begin() + 6, tensors.end());
  std::string map;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    map.append(i == 0 ? "\"" : ",\"").append(tensors[i].name);
    map.append(i < 6 ? "\":\"a.safetensors\"" : "\":\"b.safetensors\"");
  }
  const std::string index = "{\"weight_map\":{" + map + "}}";
  write("model.safetensors.index.json", index);
  write("a.safetensors", file_of(first));
  EXPECT_EQ(outcome(), "b.safetensors: cannot be opened: No such file or directory");
  write("b.safetensors", file_of(second));
  EXPECT_EQ(outcome(), "loaded");
  write("b.safetensors", file_of(tensors));
  EXPECT_EQ(outcome(), "b.safetensors: tensor 'model.embed_tokens.weight' is in a.safetensors too");
  write("a.safetensors", file_of(second));
  write("b.safetensors", file_of(first));
  EXPECT_EQ(outcome(), "model.safetensors.index.json: names 12 tensors, its files hold 0 of them");
}

TEST_F(Weights, TheDigestCoversEveryFile) {
  write_good();
  const auto digest = [&] { return eng::load_weights(directory_.path())->digest; };
  const eng::Sha256 first = digest();
  EXPECT_EQ(digest(), first);
  std::string lines = eng::hex_of(eng::sha256_of(kConfig)) + "  config.json\n";
  lines += eng::hex_of(eng::sha256_of(file_of(good_tensors()))) + "  model.safetensors\n";
  EXPECT_EQ(first, eng::sha256_of(lines));
  std::string changed = file_of(good_tensors());
  changed.back() = static_cast<char>(changed.back() ^ 1);
  write("model.safetensors", changed);
  EXPECT_NE(digest(), first);
  write_good();
  write("config.json", std::string(kConfig) + "\n");
  EXPECT_NE(digest(), first);
}

// Longer than one piece, between tensors and at the end.
TEST_F(Weights, TheDigestCoversIgnoredTensorsWhateverTheThreads) {
  write("config.json", kConfig);
  std::vector<Tensor> tensors = good_tensors();
  tensors.insert(tensors.begin() + 6, {"model.layers.0.self_attn.rotary_emb.inv_freq", {400'000}});
  tensors.push_back({"model.rotary_emb.inv_freq", {300'000}});
  const std::string file = file_of(tensors);
  write("model.safetensors", file);
  const std::string lines = eng::hex_of(eng::sha256_of(kConfig)) + "  config.json\n" +
                            eng::hex_of(eng::sha256_of(file)) + "  model.safetensors\n";
  for (const std::size_t threads : {1u, 2u, 4u}) {
    const auto weights =
        eng::load_weights(directory_.path(), {eng::MatrixForm::stored, threads, {}});
    ASSERT_TRUE(weights.has_value()) << weights.error().detail;
    EXPECT_EQ(weights->digest, eng::sha256_of(lines)) << threads;
    EXPECT_EQ(static_cast<const float*>(weights->embedding)[19], 20.0f);
    EXPECT_EQ(weights->layers.at(0).mlp_norm[0], 400'073.0f);
  }
}

TEST_F(Weights, EveryTruncationIsRefused) {
  write_good();
  const std::string whole = file_of(good_tensors());
  for (std::size_t length = whole.size(); length-- > 0;) {
    std::filesystem::resize_file(directory_.path() + "/model.safetensors", length);
    ASSERT_NE(outcome(), "loaded") << length;
  }
  write("model.safetensors", whole + "x");
  EXPECT_NE(outcome(), "loaded");
}

TEST_F(Weights, EveryFlippedHeaderByteIsRefusedOrHarmless) {
  write_good();
  const std::string whole = file_of(good_tensors());
  std::size_t refused = 0;
  const std::size_t header_end = whole.size() - 136 * 4;
  for (std::size_t i = 0; i < header_end; ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
    write("model.safetensors", damaged);
    refused += outcome() != "loaded" ? 1 : 0;
  }
  // Every byte of a compact header means something.
  EXPECT_EQ(refused, header_end);
}

}  // namespace
}  // namespace sluice::test
