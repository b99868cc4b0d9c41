// The template language: what it refuses and where, its bounds, and where the bytes of a result
// come from. That texts are those of Jinja2 is tested by tests/integration/test_chat_templates.py.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/support/seed.h"
#include "tokenizer/jinja/strftime.h"
#include "tokenizer/jinja/template.h"

namespace sluice::jinja {
namespace {

Result<Rendered> render(std::string_view source, std::string_view content = "nn",
                        const RenderLimits& limits = {}) {
  auto parsed = Template::parse(source);
  if (!parsed) return parsed.error();
  Heap heap(limits);
  const Value user = heap.view(content, Origin::content);
  const Value message = heap.dict();
  heap.set(*message.dict, "role", heap.view("user", Origin::frame));
  heap.set(*message.dict, "content", user);
  const Value messages = heap.list();
  heap.append(*messages.list, message);
  const std::vector<Variable> variables{
      {"messages", messages}, {"u", user}, {"bos_token", heap.view("<b>", Origin::frame)}};
  return parsed->render(heap, variables, 1'767'225'599);
}

std::string text_of(std::string_view source) {
  const auto rendered = render(source);
  return rendered ? rendered->bytes : "error: " + rendered.error().detail;
}

TEST(Jinja, RendersWhatOnlyThisInterpreterDoes) {
  // Lists can be changed, as llama.cpp lets templates do it.
  EXPECT_EQ(
      text_of("{% set l = [] %}{% set _ = l.append(1) %}{{ l.append(2) }}{{ l }}{{ l.pop() }}"),
      "None[1, 2]2");
  EXPECT_EQ(text_of("{{ strftime_now('%d %b %Y %H:%M') }}"), "31 Dec 2025 23:59");
  EXPECT_EQ(text_of("{% generation %}a{% set x = 1 %}{% endgeneration %}{{ x is defined }}"),
            "aFalse");
}

TEST(Jinja, TellsDates) {
  EXPECT_EQ(format_time("%A %-d %B %y, day %j, %I:%M:%S %p %e%%", 951'782'400),  // 2000-02-29
            "Tuesday 29 February 00, day 060, 12:00:00 AM 29%");
  EXPECT_EQ(format_time("%Y-%m-%d %j", 0), "1970-01-01 001");
  EXPECT_EQ(format_time("%Y-%m-%d %H", 253'402'300'799), "9999-12-31 23");
  EXPECT_EQ(format_time("%Y", -5), "1970");
  EXPECT_EQ(format_time("%Q", 0), std::nullopt);
  EXPECT_EQ(format_time("%", 0), std::nullopt);
}

TEST(Jinja, RefusesSourcesWithLineAndReason) {
  struct Case {
    std::string source;
    std::string line;
    std::string reason;
  };
  const std::vector<Case> cases{
      {"a\n{{ b", "line 2", "without its end"},
      {"{% if a %}\n\nb", "line 3", "ends inside a block"},
      {"{% endif %}", "line 1", "'endif'"},
      {"\n{% include 'x' %}", "line 2", "'include'"},
      {"{% extends 'x' %}", "line 1", "'extends'"},
      {"{% call m() %}{% endcall %}", "line 1", "'call'"},
      {"{% for a in b recursive %}{% endfor %}", "line 1", "recursive"},
      {"{{ f(*a) }}", "line 1", "star"},
      {"{{ a | nonesuch }}", "line 1", "'nonesuch'"},
      {"{{ a is nonesuch }}", "line 1", "'nonesuch'"},
      {"{{ (a] }}", "line 1", "unexpected"},
      {"{{ 'a }}", "line 1", "string without"},
      {"{# a", "line 1", "comment"},
      {"{% raw %}a", "line 1", "raw"},
      {"{{ '\\ud800' }}", "line 1", "escape"},
      {"{{ 99999999999999999999 }}", "line 1", "64 bits"},
      {"{% break %}", "line 1", "outside"},
      {"{% set true = 1 %}", "line 1", "assigned"},
      {"{{ a b }}", "line 1", "end of the expression"},
      {"{{ }}", "line 1", "expected"},
      {"{{ \xff }}", "", "UTF-8"},
      {std::string(kTemplateBytesMax + 1, 'a'), "", "longer"},
      {"{{ " + std::string(5000, '(') + "a" + std::string(5000, ')') + " }}", "line 1", "deep"},
      {"{{ " + std::string(5000, '-') + "1 }}", "line 1", "deep"},
      {"{{ 1" + std::string(5000, ' ') +
           [] {
             std::string sum;
             for (int i = 0; i < 5000; ++i) sum += "+1";
             return sum;
           }() +
           " }}",
       "line 1", "deep"},
      {[] {
         std::string blocks;
         for (int i = 0; i < 1000; ++i) blocks += "{% if a %}";
         return blocks;
       }(),
       "line 1", "deep"},
  };
  for (const Case& c : cases) {
    const auto parsed = Template::parse(c.source);
    ASSERT_FALSE(parsed) << c.source.substr(0, 60);
    EXPECT_EQ(parsed.error().code, Errc::bad_file);
    EXPECT_EQ(parsed.error().detail.substr(0, c.line.size()), c.line) << c.source.substr(0, 60);
    EXPECT_NE(parsed.error().detail.find(c.reason), std::string::npos)
        << c.source.substr(0, 60) << parsed.error().detail;
  }
}

TEST(Jinja, StopsRenderingWithLineAndReason) {
  struct Case {
    std::string source;
    std::string line;
    std::string reason;
  };
  const std::vector<Case> cases{
      {"\n{{ missing.field }}", "line 2", "'missing' is undefined"},
      {"{{ missing() }}", "line 1", "'missing' is undefined"},
      {"{{ 1 + 'a' }}", "line 1", "int and str"},
      {"{{ 1 // 0 }}", "line 1", "zero"},
      {"{{ 9223372036854775807 + 1 }}", "line 1", "64 bits"},
      {"{{ -9223372036854775807 - 2 }}", "line 1", "64 bits"},
      {"{{ 2 ** 63 }}", "line 1", "64 bits"},
      {"{{ 'a' < 1 }}", "line 1", "order"},
      {"{{ {[]: 1} }}", "line 1", "key"},
      {"{% for x in 5 %}{% endfor %}", "line 1", "iterated"},
      {"{% set a, b = [1] %}", "line 1", "unpacks"},
      {"{{ u.upper(1) }}", "line 1", "does not take"},
      {"{{ u | default(x=1) }}", "line 1", "'x'"},
      {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "line 1", "macro 'm'"},
      {"{% if u %}{{ u | nonesuch }}{% endif %}", "line 1", "'nonesuch'"},
      {"{{ messages.items() }}", "line 1", "undefined"},
      {"{{ range }}", "line 1", "function"},
      {"\n\n{{ raise_exception('only ' + u + ' roles') }}", "line 3", "says: only ... roles"},
      // What would run for ever or eat everything.
      {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "line 1",
       "more than"},
      {"{{ range(100001) }}", "line 1", "100000 items"},
      {"{{ 'abcdefgh' * 1000000000 }}", "line 1", "more than"},
      {"{{ [0] * 1000000000 }}", "line 1", "more than"},
      {"{{ ('a' * 100000) | replace('a', 'b' * 100000) }}", "line 1", "bytes"},
      {"{% set ns = namespace(t='aaaaaaaa') %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}"
       "{% endfor %}",
       "line 1", "bytes"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "line 1", "nests"},
      {[] {
         std::string deep = "{% macro m() %}", ends;
         for (int i = 0; i < 90; ++i) deep += "{% if 1 %}", ends += "{% endif %}";
         return deep + "{{ m() }}" + ends + "{% endmacro %}{{ m() }}";
       }(),
       "line 1", "nests"},
      {"{% set l = [] %}{% set _ = l.append(l) %}{{ l }}", "line 1", "nested too deeply"},
      {"{% set l = [] %}{% set _ = l.append(l) %}{{ l | tojson }}", "line 1", "nested too deeply"},
      {"{% set a = [] %}{% set b = [] %}{% set _ = a.append(b) %}{% set _ = b.append(a) %}"
       "{{ a == b }}",
       "line 1", "nested too deeply"},
  };
  const RenderLimits limits{
      .steps_max = 400'000, .heap_bytes_max = 64u << 20, .output_bytes_max = 8u << 20};
  for (const Case& c : cases) {
    const auto rendered = render(c.source, "SECRET", limits);
    ASSERT_FALSE(rendered) << c.source;
    EXPECT_EQ(rendered.error().code, Errc::invalid_value);
    EXPECT_EQ(rendered.error().detail.substr(0, c.line.size()), c.line) << c.source;
    EXPECT_NE(rendered.error().detail.find(c.reason), std::string::npos)
        << c.source << rendered.error().detail;
    EXPECT_EQ(rendered.error().detail.find("SECRET"), std::string::npos);
  }
}

TEST(Jinja, EveryBudgetEndsInATextOrAnError) {
  // The same program under growing budgets: errors, then its text.
  const std::string source =
      "{% for c in u %}{{ (c | upper) * 3 }}{{ [c, loop.index] | tojson }}{% endfor %}";
  const std::string whole = render(source, "abcdef")->bytes;
  for (const auto limit :
       {&RenderLimits::steps_max, &RenderLimits::heap_bytes_max, &RenderLimits::output_bytes_max}) {
    bool has_failed = false, has_rendered = false;
    for (std::size_t budget = 1; budget < (1u << 20); budget += 1 + budget / 3) {
      RenderLimits limits;
      limits.*limit = budget;
      const auto rendered = render(source, "abcdef", limits);
      EXPECT_TRUE(!rendered || rendered->bytes == whole);
      has_failed = has_failed || !rendered;
      EXPECT_FALSE(has_rendered && !rendered) << budget;
      has_rendered = rendered.has_value();
    }
    EXPECT_TRUE(has_failed && has_rendered);
  }
}

// ---- provenance

std::string marked(const Rendered& rendered) {
  std::string marks;
  for (std::size_t i = 0; i < rendered.bytes.size(); ++i)
    marks += rendered.view().origin_at(i) == Origin::frame ? 'f' : 'c';
  return marks;
}

TEST(Jinja, SaysWhereEachByteComesFrom) {
  struct Case {
    std::string source, text, marks;
  };
  const std::vector<Case> cases{
      {"ab{{ u }}c", "abnnc", "ffccf"},
      {"{{ bos_token + messages[0].role + u }}", "<b>usernn", "fffffffcc"},
      {"{{ 'ab' ~ 12 ~ u }}", "ab12nn", "ffcccc"},
      {"{{ {'ab': 'c'} | tojson }}", "{\"ab\": \"c\"}", "ccccccccccc"},
      {"{{ ['ab'] }}", "['ab']", "cccccc"},
      {"{{ ('a' + u + 'b')[1:-1] }}{{ ('a' + u)[::-1] }}", "nnnna", "ccccf"},
      {"{{ ('a' + u) | replace('n', 'b') }}{{ ('a' + u) | upper }}", "abbANN", "ffffcc"},
      {"{{ (u ~ 'an') .split('n') | join('b') }}", "bbab", "ffff"},
      {"{% set x %}a{{ u }}{% endset %}{{ x ~ x | length }}", "ann3", "fccc"},
      {"{{ 'a%sb' % u }}{{ 'a{}b'.format(u) }}", "annbannb", "fccffccf"},
      {"{{ strftime_now('%Y') }}{{ loop }}", "2025", "cccc"},
  };
  for (const Case& c : cases) {
    const auto rendered = render(c.source);
    ASSERT_TRUE(rendered) << c.source << rendered.error().detail;
    EXPECT_EQ(rendered->bytes, c.text);
    EXPECT_EQ(marked(*rendered), c.marks) << c.source;
  }
}

// Letters tell their origin: the template has only a..m, the content only n..z. Random programs of
// everything that copies text must keep both apart.
class ProvenancePrograms {
 public:
  explicit ProvenancePrograms(std::uint64_t seed) : random_(seed) {}

  std::string content() {
    std::string text;
    for (std::uint32_t i = pick(8); i > 0; --i)
      text += choose({"n", "Q", "z", " ", "\n", "\xC3\xA9", "\xE4\xB8\x96", ",", "%s", "{}", "p"});
    return text;
  }

  std::string source() {
    const std::string a = expression(0), b = expression(1), c = expression(1);
    switch (pick(7)) {
      case 0:
        return "{% set x %}ab{{ " + a + " }}{% endset %}{{ x }}{{ x | trim }}";
      case 1:
        return "{% macro m(p, q='cd') %}<{{ p }}{{ q }}>{% endmacro %}{{ m(" + a + ") ~ m(" + b +
               ", q=" + c + ") }}";
      case 2:
        return "{% for x in " + a + " %}{{ x }}k{% endfor %}";
      case 3:
        return "{% set ns = namespace(x='') %}{% for y in [" + a + ", " + b +
               "] %}{% set ns.x = y ~ ns.x %}{% endfor %}{{ ns.x }}";
      case 4:
        return "{% filter upper %}ab{{ " + a + " }}{% endfilter %}";
      case 5:
        return "{{ {'k': " + a + "}.k ~ {'k': " + b + "}['k'] ~ {'k': " + c + "}.get('k') }}";
      default:
        return "ab {{- " + a + " -}} cd\n";
    }
  }

 private:
  std::uint32_t pick(std::uint32_t count) {
    return std::uniform_int_distribution<std::uint32_t>(0, count - 1)(random_);
  }
  std::string choose(std::initializer_list<const char*> list) {
    return list.begin()[pick(static_cast<std::uint32_t>(list.size()))];
  }

  // Its value is a string.
  std::string expression(int depth) {
    if (depth > 4 || pick(5) == 0)
      return choose({"u", "u", "'abc'", "'Def g'", "' hI '", "messages[0].content", "''"});
    const std::string a = expression(depth + 1);
    switch (pick(9)) {
      case 0:
        return "(" + a + " + " + expression(depth + 1) + ")";
      case 1:
        return "(" + a + " ~ " + expression(depth + 1) + ")";
      case 2:
        return "(" + a + ")" +
               choose({"[1:]", "[:-1]", "[::-1]", "[::2]", "[-3:2]", "[2:0:-1]", "[1:3]"});
      case 3:
        return "(" + a + ")" +
               choose({".strip()", ".lstrip('an')", ".rstrip()", ".upper()", ".title()",
                       ".replace('n', 'b')", ".replace('', 'c', 3)", ".replace('z', '')",
                       ".removeprefix('n')", ".removesuffix('c')"});
      case 4:
        return "((" + a + ") | " +
               choose({"trim", "upper", "lower", "title", "capitalize", "string", "safe", "reverse",
                       "replace('a', 'df')", "indent(1)", "indent('k', true)", "default('j')",
                       "e | replace('&lt;', '')"}) +
               ")";
      case 5:
        return "((" + a + ")" +
               choose({".split()", ".split('n')", ".split(',', 1)", ".rsplit('a', 1)",
                       ".splitlines()", " | list"}) +
               " | " + choose({"join", "join('m')", "reverse | join(' ')", "join('l') | upper"}) +
               ")";
      case 6:
        return "('%s-%5s' % (" + a + ", " + expression(depth + 1) + "))";
      case 7:
        return "('f{0}{0}'.format(" + a + "))";
      default:
        return "[" + a + ", " + expression(depth + 1) + "]" +
               choose({"| first", "| last", "| join('i')", "[0]", "| map('trim') | join",
                       "| select | join", "| sort | join", "| unique | join"});
    }
  }

  std::mt19937_64 random_;
};

TEST(Jinja, NeverMixesUpContentAndFrame) {
  const std::uint64_t seed = test::test_seed(1);
  ProvenancePrograms programs(seed);
  std::size_t num_rendered = 0, num_content = 0, num_frame = 0;
  constexpr std::size_t kPrograms = 6000;
  for (std::size_t i = 0; i < kPrograms; ++i) {
    const std::string source = programs.source(), content = programs.content();
    const auto rendered = render(source, content);
    if (!rendered) continue;
    ++num_rendered;
    const Text text = rendered->view();
    ASSERT_EQ(text.runs.empty(), text.bytes.empty());
    for (std::size_t r = 0; r < text.runs.size(); ++r) {
      ASSERT_LT(text.runs[r].begin, text.bytes.size());
      ASSERT_TRUE(r == 0 ? text.runs[r].begin == 0
                         : text.runs[r - 1].begin < text.runs[r].begin &&
                               text.runs[r - 1].origin != text.runs[r].origin);
    }
    for (std::size_t at = 0; at < text.bytes.size(); ++at) {
      const char letter = static_cast<char>(text.bytes[at] | 0x20);
      const bool is_letter = letter >= 'a' && letter <= 'z' && (text.bytes[at] & '\x80') == 0;
      if (!is_letter) continue;
      const bool is_content = letter > 'm';
      ++(is_content ? num_content : num_frame);
      ASSERT_EQ(text.origin_at(at) != Origin::frame, is_content) << "seed " << seed << "\n"
                                                                 << source << "\n"
                                                                 << content << "\n"
                                                                 << text.bytes;
    }
  }
  EXPECT_GT(num_rendered, kPrograms * 3 / 4);
  EXPECT_GT(num_content, kPrograms);
  EXPECT_GT(num_frame, kPrograms);
}

}  // namespace
}  // namespace sluice::jinja
