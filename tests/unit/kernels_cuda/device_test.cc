// The CUDA kernels on a device against the scalar oracle; skipped, visibly, where there is none.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/kernel_table.h"
#include "shared/random.h"

namespace sluice::krn::cuda {
namespace {

std::vector<float> random_floats(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i)
    values[i] =
        static_cast<float>(random_unit({seed, 0, static_cast<std::uint32_t>(i)}, 0) * 2 - 1);
  return values;
}

const DeviceTable& table() {
  static const DeviceTable* const loaded = [] {
    std::string error;
    const DeviceTable* found = load_device_module(SLUICE_CUDA_MODULE, error);
    if (found == nullptr) ADD_FAILURE() << error;
    return found;
  }();
  return *loaded;
}

TEST(CudaModule, LoadsAndSaysWhetherThereIsADevice) {
  std::string error, reason;
  ASSERT_NE(load_device_module(SLUICE_CUDA_MODULE, error), nullptr) << error;
  EXPECT_STREQ(table().name, "cuda");
  const int count = table().num_devices(reason);
  EXPECT_EQ(reason.empty(), count > 0) << reason;
}

TEST(CudaModule, AFileThatIsNoModuleIsAnErrorThatNamesIt) {
  std::string error;
  EXPECT_EQ(load_device_module("/nowhere/sluice_cuda.so", error), nullptr);
  EXPECT_NE(error.find("/nowhere/sluice_cuda.so"), std::string::npos);
  EXPECT_EQ(load_device_module("libm.so.6", error), nullptr);
  EXPECT_NE(error.find(kDeviceModuleEntry), std::string::npos) << error;
}

template <class T>
class DeviceArray {
 public:
  DeviceArray(DeviceContext& context, const std::vector<T>& host)
      : context_(context), size_(host.size()) {
    data_ = static_cast<T*>(table().allocate(context, size_ * sizeof(T)));
    EXPECT_EQ(table().copy_to_device(context, data_, host.data(), size_ * sizeof(T)), "");
  }
  ~DeviceArray() { table().release(context_, data_); }
  DeviceArray(const DeviceArray&) = delete;
  T* data() { return data_; }
  std::vector<T> host() {
    std::vector<T> values(size_);
    EXPECT_EQ(table().copy_to_host(context_, values.data(), data_, size_ * sizeof(T)), "");
    EXPECT_EQ(table().synchronize(context_), "");
    return values;
  }

 private:
  DeviceContext& context_;
  std::size_t size_;
  T* data_;
};

class CudaDevice : public testing::Test {
 protected:
  void SetUp() override {
    std::string error;
    if (table().num_devices(error) == 0) GTEST_SKIP() << "no CUDA device here: " << error;
    context_ = table().open(0, error);
    ASSERT_NE(context_, nullptr) << error;
  }
  ~CudaDevice() override {
    if (context_ != nullptr) table().close(context_);
  }
  DeviceContext* context_ = nullptr;
};

TEST_F(CudaDevice, RmsNormAgreesWithTheOracle) {
  const std::size_t dim = 2048, rows = 3;
  const auto x = random_floats(rows * dim, 1), weight = random_floats(dim, 2);
  std::vector<float> expected(rows * dim);
  for (std::size_t r = 0; r < rows; ++r)
    find_kernels("scalar")->rms_norm(x.data() + r * dim, weight.data(), expected.data() + r * dim,
                                     dim, 1e-5f);
  DeviceArray<float> dx(*context_, x), dw(*context_, weight),
      dy(*context_, std::vector<float>(rows * dim));
  ASSERT_EQ(table().rms_norm(*context_, {dx.data(), dw.data(), dy.data(), dim, dim, 1e-5f}, rows),
            "");
  const auto y = dy.host();
  for (std::size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], 1e-5f);
}

TEST_F(CudaDevice, AddRmsNormHasTheBitsOfTheSumAndOfTheNorm) {
  const std::size_t dim = 2048, rows = 9;
  const auto begin = random_floats(rows * dim, 1);
  DeviceArray<float> sum(*context_, begin), x(*context_, begin),
      delta(*context_, random_floats(rows * dim, 2)), weight(*context_, random_floats(dim, 3)),
      normed(*context_, std::vector<float>(rows * dim)), y(*context_, normed.host());
  ASSERT_EQ(table().add(*context_, {sum.data(), delta.data(), dim}, rows), "");
  ASSERT_EQ(table().rms_norm(*context_, {sum.data(), weight.data(), normed.data(), dim, dim, 1e-5f},
                             rows),
            "");
  ASSERT_EQ(table().add_rms_norm(
                *context_, {x.data(), delta.data(), weight.data(), y.data(), dim, 1e-5f}, rows),
            "");
  EXPECT_EQ(x.host(), sum.host());
  EXPECT_EQ(y.host(), normed.host());
}

// Our kernel up to 8 tokens, cuBLAS above and where columns come in no fours.
TEST_F(CudaDevice, MatmulAgreesWithAPlainSum) {
  const std::size_t rows = 50;
  for (const auto& [tokens, cols] :
       {std::pair{1u, 64u}, {2u, 516u}, {5u, 64u}, {8u, 132u}, {9u, 64u}, {3u, 63u}}) {
    const auto w = random_floats(rows * cols, 3), x = random_floats(tokens * cols, 4);
    DeviceArray<float> dw(*context_, w), dx(*context_, x),
        dy(*context_, std::vector<float>(tokens * rows));
    ASSERT_EQ(table().matmul(*context_, {dw.data(), dx.data(), dy.data(), tokens, rows, cols}), "");
    const auto y = dy.host();
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (std::size_t c = 0; c < cols; ++c)
          sum += double{w[r * cols + c]} * double{x[t * cols + c]};
        // TF32 is off: terms of at most 1.
        ASSERT_NEAR(y[t * rows + r], sum, 1e-3) << tokens << " tokens, " << cols << " columns";
      }
  }
}

TEST_F(CudaDevice, DecodeAttentionAgreesWithTheOracle) {
  const std::size_t heads = 6, kv_heads = 2, head_dim = 64, block_tokens = 16, length = 1130;
  const std::size_t num_blocks = (length + block_tokens - 1) / block_tokens;
  PagedKv kv{nullptr, num_blocks, 1, kv_heads, head_dim, block_tokens};
  const auto cache = random_floats(kv.num_blocks * kv_block_floats(kv) + 16, 5);
  const auto q = random_floats(heads * head_dim, 6);
  std::vector<std::uint32_t> block_table;
  for (std::uint32_t i = 0; i < num_blocks; ++i)
    block_table.push_back(static_cast<std::uint32_t>(num_blocks) - 1 - i);
  std::vector<float> aligned(cache.size() + 16), expected(q.size());
  const auto address = reinterpret_cast<std::uintptr_t>(aligned.data());
  kv.data = aligned.data() + (64 - address % 64) % 64 / sizeof(float);
  std::copy_n(cache.begin(), kv.num_blocks * kv_block_floats(kv), kv.data);
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  const AttentionSpan span{0, 1, length - 1, block_table.data()};
  const AttentionJob job{kv, 0, heads, scale, q.data(), q.size(), expected.data(), q.size(), &span};
  for (std::uint32_t h = 0; h < kv_heads; ++h) find_kernels("scalar")->attend(job, {0, h, 0, 1});

  DeviceArray<float> dkv(*context_, cache), dq(*context_, q),
      dout(*context_, std::vector<float>(q.size()));
  DeviceArray<std::uint32_t> dtable(*context_, block_table), dbegin(*context_, {0u}),
      dlength(*context_, {std::uint32_t{length}});
  kv.data = dkv.data();
  constexpr std::size_t kChunk = 2 * kAttentionChunk;
  DeviceArray<float> dpartials(*context_, std::vector<float>(heads * 3 * (head_dim + 2)));
  for (const std::size_t num_chunks : {std::size_t{1}, length / kChunk + 1}) {
    ASSERT_EQ(table().attention_decode(
                  *context_,
                  {dq.data(), dout.data(), dtable.data(), dbegin.data(), dlength.data(), kv, 0,
                   heads, q.size(), q.size(), scale, 0, kChunk, num_chunks, dpartials.data()},
                  1),
              "");
    const auto out = dout.host();
    for (std::size_t i = 0; i < out.size(); ++i)
      ASSERT_NEAR(out[i], expected[i], 1e-5f) << num_chunks << " chunks";
  }
}

// Our own kernel and, with 9 tokens, cuBLAS: nothing is done until the replay, each replay does it
// with what lies in memory then, and its bits are those of the launches.
TEST_F(CudaDevice, ARecordingIsDoneAtItsReplays) {
  constexpr std::size_t kRows = 64, kCols = 512;
  for (const std::size_t tokens : {3u, 9u}) {
    DeviceArray<float> w(*context_, random_floats(kRows * kCols, 7)),
        x(*context_, random_floats(tokens * kCols, 8)),
        delta(*context_, random_floats(tokens * kCols, 9)),
        y(*context_, std::vector<float>(tokens * kRows));
    const auto launches = [&] {
      ASSERT_EQ(table().add(*context_, {x.data(), delta.data(), kCols}, tokens), "");
      ASSERT_EQ(table().matmul(*context_, {w.data(), x.data(), y.data(), tokens, kRows, kCols}),
                "");
    };
    launches();
    launches();
    const auto after_two = y.host();
    launches();
    const auto after_three = y.host();
    ASSERT_NE(after_three, after_two);
    const auto begin = random_floats(tokens * kCols, 8);
    ASSERT_EQ(
        table().copy_to_device(*context_, x.data(), begin.data(), begin.size() * sizeof(float)),
        "");
    ASSERT_EQ(table().begin_recording(*context_), "");
    launches();
    DeviceRecording* recording = nullptr;
    ASSERT_EQ(table().end_recording(*context_, &recording), "");
    ASSERT_NE(recording, nullptr);
    ASSERT_EQ(x.host(), begin);
    ASSERT_EQ(y.host(), after_three);
    for (const int replays : {2, 1}) {
      for (int i = 0; i < replays; ++i) ASSERT_EQ(table().replay(*context_, recording), "");
      ASSERT_EQ(y.host(), replays == 2 ? after_two : after_three);
    }
    table().release_recording(*context_, recording);
  }
}

// An empty launch, and memory that is asked for: the recording fails or is of no use, the context
// works on.
TEST_F(CudaDevice, AfterAFailedRecordingItWorksOn) {
  DeviceArray<float> x(*context_, std::vector<float>(64, 1.0f)),
      delta(*context_, std::vector<float>(64, 2.0f));
  const AddArgs add{x.data(), delta.data(), 64};
  ASSERT_EQ(table().begin_recording(*context_), "");
  EXPECT_NE(table().begin_recording(*context_), "");
  EXPECT_NE(table().add(*context_, add, 0), "");
  EXPECT_NE(table().synchronize(*context_), "");
  DeviceRecording* recording = nullptr;
  EXPECT_NE(table().end_recording(*context_, &recording), "");
  EXPECT_EQ(recording, nullptr);
  EXPECT_NE(table().end_recording(*context_, &recording), "");
  ASSERT_EQ(table().add(*context_, add, 1), "");
  EXPECT_EQ(x.host(), std::vector<float>(64, 3.0f));
}

}  // namespace
}  // namespace sluice::krn::cuda
