// PROTOCOL.md against the code: the worked example is read out of the document and compared byte
// for byte with what the ring writes; the offsets of its tables with the structs.
#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "shared/byte_ring.h"
#include "shared/journal.h"
#include "shared/messages.h"
#include "shared/worker_facts.h"
#include "tests/support/region_pair.h"

namespace sluice {
namespace {

std::string document() {
  std::ifstream file(std::string(SLUICE_SOURCE_DIR) + "/shared/PROTOCOL.md");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The bytes of the fenced block after "### Example": two-digit words up to the remark.
std::vector<std::byte> example_bytes(const std::string& text) {
  const std::size_t begin = text.find("```\n", text.find("### Example")) + 4;
  std::stringstream block(text.substr(begin, text.find("```", begin) - begin));
  std::vector<std::byte> bytes;
  for (std::string line; std::getline(block, line);) {
    std::stringstream words(line);
    for (std::string word; words >> word && word.size() == 2;)
      bytes.push_back(static_cast<std::byte>(std::stoi(word, nullptr, 16)));
  }
  return bytes;
}

TEST(Protocol, TheExampleIsWhatTheRingWrites) {
  test::RegionPair pair(kRingBytesMin, Epoch(5));
  shm::RingWriter writer(pair.step, pair.submit_peer);
  const RejectRecord record{7, static_cast<std::uint32_t>(Errc::context_length_exceeded), 0};
  ASSERT_TRUE(writer.try_write(RecordType::reject, std::as_bytes(std::span(&record, 1))));
  const auto expected = example_bytes(document());
  ASSERT_EQ(expected.size(), writer.position());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), pair.step.ring().begin()));
}

TEST(Protocol, TheTablesHaveTheOffsetsOfTheStructs) {
  const std::string text = document();
  const auto row = [&](std::size_t offset, std::size_t bytes, const std::string& field) {
    const std::string line =
        "| " + std::to_string(offset) + " | " + std::to_string(bytes) + " | " + field;
    EXPECT_NE(text.find(line), std::string::npos) << line;
  };
#define REGION_ROW(field) \
  row(offsetof(shm::RegionHeader, field), sizeof shm::RegionHeader::field, #field)
#define JOURNAL_ROW(field) row(offsetof(JournalHeader, field), sizeof JournalHeader::field, #field)
  REGION_ROW(magic);
  REGION_ROW(kind);
  REGION_ROW(worker);
  REGION_ROW(worker_epoch);
  REGION_ROW(gateway_epoch);
  REGION_ROW(region_bytes);
  REGION_ROW(ring_bytes);
  REGION_ROW(reserved);
  REGION_ROW(version);
  REGION_ROW(write_position);
  REGION_ROW(read_position);
  REGION_ROW(read_epoch);
  REGION_ROW(sleeping);
  const auto names = [&](const std::string& words) {
    EXPECT_NE(text.find(words), std::string::npos) << words;
  };
  names("| 124 | 4 | version | " + std::to_string(shm::kRegionVersion) + ";");
  names("`StepRecord` (" + std::to_string(sizeof(StepRecord)) + "), `StepEntry` (" +
        std::to_string(sizeof(StepEntry)) + ")");
  names("`SubmitRecord` (" + std::to_string(sizeof(SubmitRecord)) + ")");
  names("| 32 | " + std::to_string(sizeof(WorkerFacts)) + " | `WorkerFacts` |");
  JOURNAL_ROW(magic);
  JOURNAL_ROW(version);
  JOURNAL_ROW(num_slots);
  JOURNAL_ROW(boot_id);
  JOURNAL_ROW(gateway_epoch);
  JOURNAL_ROW(next_id);
  JOURNAL_ROW(totals);
  JOURNAL_ROW(intent_slot);
  JOURNAL_ROW(intent_state);
  JOURNAL_ROW(intent_totals);
#undef REGION_ROW
#undef JOURNAL_ROW
}

}  // namespace
}  // namespace sluice
