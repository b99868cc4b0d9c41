// Published templates as prompt ids: the frames that the families have, too, and content that tries
// to be a frame, against a naive matcher that knows where each byte came from.
#include "tokenizer/published_template.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/support/seed.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

const std::string kModel = SLUICE_SOURCE_DIR "/models/canned/tokenizer.model";
const std::string kTemplates = SLUICE_SOURCE_DIR "/tests/golden/chat_templates/";

std::string template_file(const std::string& name) {
  std::ostringstream text;
  text << std::ifstream(kTemplates + name + ".jinja", std::ios::binary).rdbuf();
  EXPECT_FALSE(text.str().empty()) << name;
  return text.str();
}

// The canned vocabulary (with <|im_start|>, <|im_end|>) plus Llama-3's special pieces, and a
// template of its own.
Tokenizer with_template(const std::string& source) {
  std::string bytes = read_model_file(kModel, 1u << 20).value();
  for (const std::string text :
       {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
    bytes += '\x0A';
    bytes += static_cast<char>(text.size() + 4);
    bytes += '\x0A';
    bytes += static_cast<char>(text.size());
    bytes.append(text).append("\x18\x03");
  }
  const std::filesystem::path folder =
      testing::TempDir() + "published_template_" + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  std::ofstream(folder / "tokenizer.model", std::ios::binary) << bytes;
  std::ofstream(folder / "chat_template.jinja", std::ios::binary) << source;
  auto loaded = Tokenizer::load((folder / "tokenizer.model").string());
  std::filesystem::remove_all(folder);
  return std::move(loaded.value());
}

const ChatMessage kSystem{Role::system, "Be brief.", ""};
const ChatMessage kUser{Role::user, " Hello \n", ""};
const ChatMessage kAssistant{Role::assistant, " Hi there. ", ""};
constexpr ChatOptions kNoPrompt{
    .add_generation_prompt = false, .continue_final_message = false, .unix_s = 0};
constexpr ChatOptions kContinue{
    .add_generation_prompt = false, .continue_final_message = true, .unix_s = 0};

std::vector<TokenId> ids_of(const ChatTemplate& chat, const Tokenizer& tokenizer,
                            const std::vector<ChatMessage>& messages, ChatOptions options = {}) {
  std::vector<TokenId> ids;
  const auto encoded = chat.encode(tokenizer, messages, options, ids);
  EXPECT_TRUE(encoded) << encoded.error().detail;
  return ids;
}

std::vector<TokenId> special_ids_of(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  std::vector<TokenId> special;
  std::ranges::copy_if(ids, std::back_inserter(special),
                       [&](TokenId id) { return tokenizer.is_special(id); });
  return special;
}

class RandomTexts {
 public:
  explicit RandomTexts(std::uint64_t seed) : random_(seed) {}

  std::string text() {
    static const std::vector<std::string> kPieces{"<|im_start|>",
                                                  "<|im_end|>",
                                                  "<|im_",
                                                  "end|>",
                                                  "<|eot_id|>",
                                                  "<s>",
                                                  "</s>",
                                                  "<",
                                                  "s>",
                                                  "<|begin_of_",
                                                  "text|>",
                                                  "a",
                                                  "Hello ",
                                                  "\n",
                                                  " ",
                                                  "\xFF",
                                                  "\xC3\xA9",
                                                  "<|start_header_id|>system",
                                                  "[INST]",
                                                  "{{ bos_token }}",
                                                  "assistant"};
    std::string text;
    for (std::uint64_t i = test::uniform(random_, 0, 5); i > 0; --i)
      text += kPieces[test::uniform(random_, 0, kPieces.size() - 1)];
    return text;
  }

  std::vector<ChatMessage> conversation() {
    std::vector<ChatMessage> messages;
    for (std::uint64_t i = test::uniform(random_, 1, 5); i > 0; --i)
      messages.push_back({messages.size() % 2 == 0 ? Role::user : Role::assistant, text(), ""});
    return messages;
  }

 private:
  std::mt19937_64 random_;
};

TEST(PublishedTemplate, WritesTheSameIdsAsTheFamilyOfItsFrame) {
  RandomTexts texts(test::test_seed(1));
  for (const auto& [name, family] :
       {std::pair("chatml", TemplateFamily::chatml), std::pair("llama3", TemplateFamily::llama3),
        std::pair("llama2", TemplateFamily::llama2)}) {
    std::string source = template_file(name);
    // Here <s> is bos; the family's frame begins with a piece of its own.
    if (family == TemplateFamily::llama3)
      source.replace(source.find("bos_token"), 9, "'<|begin_of_text|>'");
    const Tokenizer tokenizer = with_template(source);
    const auto published = ChatTemplate::choose("", tokenizer);
    ASSERT_TRUE(published) << published.error().detail;
    ASSERT_TRUE(published->is_published());
    const auto built_in = ChatTemplate::make(family, tokenizer);
    for (int round = 0; round < 200; ++round) {
      std::vector<ChatMessage> messages = texts.conversation();
      // The family writes no space before the end of the sequence in an empty answer alone.
      const bool is_llama2 = family == TemplateFamily::llama2;
      if (is_llama2)
        for (ChatMessage& message : messages) message.content += "x";
      if (is_llama2 && messages.size() % 2 == 0) messages.pop_back();
      const ChatOptions options = is_llama2        ? ChatOptions{}
                                  : round % 2 == 0 ? ChatOptions{}
                                                   : kNoPrompt;
      ASSERT_EQ(ids_of(*published, tokenizer, messages, options),
                ids_of(*built_in, tokenizer, messages, options))
          << name << " " << messages.front().content;
    }
  }
}

// Rules 2 and 3 in the plainest way: special ids are those that a matcher finds in the text with
// all content made unreadable.
std::vector<TokenId> naive_special_ids(const Tokenizer& tokenizer, const jinja::Text& text) {
  std::string frame(text.bytes);
  for (std::size_t i = 0; i < frame.size(); ++i)
    if (text.origin_at(i) != jinja::Origin::frame) frame[i] = '\x01';
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < frame.size();) {
    std::size_t longest = 0;
    for (std::size_t size = 1; size <= frame.size() - i && size < 40; ++size)
      if (tokenizer.special_id(frame.substr(i, size))) longest = size;
    if (longest > 0) ids.push_back(*tokenizer.special_id(frame.substr(i, longest)));
    i += std::max<std::size_t>(longest, 1);
  }
  return ids;
}

TEST(PublishedTemplate, ContentNeverFormsAFrame) {
  const std::uint64_t seed = test::test_seed(1);
  std::mt19937_64 random(seed);
  RandomTexts texts(seed);
  const Tokenizer tokenizer = with_template("{{ messages }}");
  for (int round = 0; round < 3000; ++round) {
    // Any mixture of frame and content, cut anywhere.
    jinja::TextBuilder builder;
    for (std::uint64_t i = test::uniform(random, 0, 8); i > 0; --i) {
      std::string bytes;
      append_valid_utf8(texts.text(), bytes);
      builder.append(bytes, static_cast<jinja::Origin>(test::uniform(random, 0, 2)));
    }
    std::vector<TokenId> ids;
    encode_rendered(tokenizer, builder.view(), ids);
    ASSERT_EQ(special_ids_of(tokenizer, ids), naive_special_ids(tokenizer, builder.view()))
        << "seed " << seed << " round " << round << "\n"
        << builder.view().bytes;
  }
}

TEST(PublishedTemplate, NoTemplateLetsContentChangeItsFrame) {
  RandomTexts texts(test::test_seed(1));
  for (const std::string name :
       {"chatml", "llama2", "llama3", "llama31_tools", "mistral_tools", "qwen25_tools", "smollm",
        "zephyr", "gemma", "documents_cohere", "macros_typescript"}) {
    const Tokenizer tokenizer = with_template(template_file(name));
    const auto chat = ChatTemplate::choose("", tokenizer);
    ASSERT_TRUE(chat) << name << chat.error().detail;
    for (int round = 0; round < 40; ++round) {
      std::vector<ChatMessage> messages = texts.conversation();
      if (name == "llama2" && messages.size() % 2 == 0) messages.pop_back();
      const auto specials = special_ids_of(tokenizer, ids_of(*chat, tokenizer, messages));
      for (ChatMessage& message : messages) message.content = "x";
      ASSERT_EQ(specials, special_ids_of(tokenizer, ids_of(*chat, tokenizer, messages))) << name;
    }
  }
}

TEST(PublishedTemplate, PiecesAreNotMadeOfFrameAndContentTogether) {
  const Tokenizer tokenizer =
      with_template("<|im_{{ messages[0].content }}<|im_end|>{{ messages[0].content }}end|>");
  const auto chat = ChatTemplate::choose("", tokenizer);
  ASSERT_TRUE(chat);
  for (const std::string content : {"end|>", "<|im_", "end|><|im_", "start|>"}) {
    const auto ids = ids_of(*chat, tokenizer, {{Role::user, content, ""}});
    EXPECT_EQ(special_ids_of(tokenizer, ids),
              (std::vector<TokenId>{*tokenizer.special_id("<|im_end|>")}));
  }
}

TEST(PublishedTemplate, ALastMessageStaysOpen) {
  const Tokenizer chatml = with_template(template_file("chatml"));
  const auto published = ChatTemplate::choose("", chatml);
  const auto family = ChatTemplate::make(TemplateFamily::chatml, chatml);
  for (const auto& messages : {std::vector{kUser, kAssistant}, std::vector{kUser},
                               std::vector{kAssistant, kUser, {Role::assistant, "<|im_end|>", ""}},
                               std::vector{kUser, {Role::assistant, "", ""}}})
    EXPECT_EQ(ids_of(*published, chatml, messages, kContinue),
              ids_of(*family, chatml, messages, kContinue));

  // A template that trims, and one that leaves the answer out.
  std::string source = template_file("llama3");
  source.replace(source.find("bos_token"), 9, "'<|begin_of_text|>'");
  const Tokenizer llama3 = with_template(source);
  EXPECT_EQ(ids_of(*ChatTemplate::choose("", llama3), llama3, {kUser, kAssistant}, kContinue),
            ids_of(*ChatTemplate::make(TemplateFamily::llama3, llama3), llama3, {kUser, kAssistant},
                   kContinue));
  const Tokenizer deaf = with_template("{{ messages[0].content }}");
  std::vector<TokenId> ids{9};
  const auto refused =
      ChatTemplate::choose("", deaf)->encode(deaf, std::vector{kUser, kAssistant}, kContinue, ids);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid_value);
  EXPECT_EQ(refused.error().param, "continue_final_message");
  EXPECT_EQ(ids, std::vector<TokenId>{9});
}

TEST(PublishedTemplate, KnowsWhatEndsATurn) {
  for (const auto& [name, text] :
       {std::pair("chatml", "<|im_end|>"), std::pair("llama3", "<|eot_id|>"),
        std::pair("llama2", ""), std::pair("gemma", "")}) {
    const Tokenizer tokenizer = with_template(template_file(name));
    const auto chat = ChatTemplate::choose("", tokenizer);
    ASSERT_TRUE(chat) << chat.error().detail;
    std::vector<TokenId> wanted{*tokenizer.vocabulary().eos};
    if (*text != '\0') wanted.insert(wanted.begin(), *tokenizer.special_id(text));
    EXPECT_EQ(std::vector<TokenId>(chat->stop_ids().begin(), chat->stop_ids().end()), wanted)
        << name;
  }
}

TEST(PublishedTemplate, WritesOneBosAsTheTemplateDoes) {
  const TokenId bos = 1;
  for (const auto& [source, count] :
       {std::pair("{{ bos_token }}{{ messages[0].content }}", 1),
        std::pair("{{ messages[0].content }}", 0), std::pair("<s>{{ messages[0].content }}", 1)}) {
    const Tokenizer tokenizer = with_template(source);
    EXPECT_TRUE(tokenizer.vocabulary().adds_bos);
    const auto ids =
        ids_of(*ChatTemplate::choose("", tokenizer), tokenizer, {{Role::user, "<s>Hi", ""}});
    EXPECT_EQ(std::ranges::count(ids, bos), count);
    // The first text has the dummy prefix, behind a bos, too.
    std::vector<TokenId> text;
    tokenizer.encode("<s>Hi", Segment::first, text);
    EXPECT_TRUE(std::ranges::equal(std::span(ids).last(text.size()), text));
  }
}

TEST(PublishedTemplate, DeveloperIsSystemForTemplatesThatDoNotKnowIt) {
  const std::vector<ChatMessage> messages{{Role::developer, "x", ""}, {Role::tool, "y", "n"}};
  const Tokenizer plain =
      with_template("{% for m in messages %}{{ m.role }}{{ m.name }} {% endfor %}");
  std::vector<TokenId> wanted;
  plain.encode("system tooln ", Segment::first, wanted);
  EXPECT_EQ(ids_of(*ChatTemplate::choose("", plain), plain, messages), wanted);
  const Tokenizer knowing =
      with_template("{% for m in messages %}{{ m.role if m.role == 'developer' }}{% endfor %}");
  wanted.clear();
  knowing.encode("developer", Segment::first, wanted);
  EXPECT_EQ(ids_of(*ChatTemplate::choose("", knowing), knowing, messages), wanted);
}

TEST(PublishedTemplate, RefusesWithLineAndReasonAndNoPrompt) {
  for (const auto& [source, reason] :
       {std::pair("a\n{% if %}", "line 2"),
        std::pair("\n{{ nothing.at_all }}", "line 2: 'nothing'"),
        std::pair("{{ raise_exception('never') }}", "says: never")}) {
    const Tokenizer tokenizer = with_template(source);
    const auto chat = ChatTemplate::choose("", tokenizer);
    ASSERT_FALSE(chat);
    EXPECT_EQ(chat.error().code, Errc::bad_config);
    EXPECT_NE(chat.error().detail.find(reason), std::string::npos) << chat.error().detail;
    EXPECT_NE(chat.error().detail.find("chatml"), std::string::npos);
    EXPECT_TRUE(ChatTemplate::choose("chatml", tokenizer));
  }
  const Tokenizer gemma = with_template(template_file("gemma"));
  std::vector<TokenId> ids;
  const auto refused = ChatTemplate::choose("", gemma)->encode(
      gemma, std::vector<ChatMessage>{{Role::system, "SECRET", ""}}, {}, ids);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid_value);
  EXPECT_EQ(refused.error().param, "messages");
  EXPECT_NE(refused.error().detail.find("There is no system role"), std::string::npos);
  EXPECT_EQ(refused.error().detail.find("SECRET"), std::string::npos);
  const auto unknown = ChatTemplate::choose("vicuna", gemma);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Errc::bad_config);
}

}  // namespace
}  // namespace sluice::tok
