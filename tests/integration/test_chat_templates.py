"""The template language against Python's Jinja2: golden renderings, and random conversations, expressions and small
programs both ways. Published templates by path, for their byte-exactness:
    TEMPLATES=DIR python3 tests/integration/test_chat_templates.py
"""
import json
import os
import pathlib
import random
import subprocess
import unittest

from sluice_process import BIN, PATIENCE, run_main
import template_cases
from template_cases import NOW, RandomCases, TEMPLATES, fixed_contexts, line_of

try:
    import python_templates
except ImportError:  # python3-jinja2 is a test package; the golden texts need none
    python_templates = None

SEED = int(os.environ.get("TEST_SEED", "1"))
ROUNDS = int(os.environ.get("TEMPLATE_ROUNDS", "1"))


def render_all(cases):
    """What the interpreter makes of (template, context) pairs: texts, or None; and the errors' words."""
    lines = "".join(line_of(*case) for case in cases)
    result = subprocess.run([str(BIN / "render_template")], input=lines, capture_output=True, text=True,
                            encoding="utf-8", timeout=300 * PATIENCE, check=False)
    assert result.returncode == 0, (result.returncode, result.stderr[-2000:])
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == len(cases)
    return answers


class Golden(unittest.TestCase):
    def test_every_family_renders_as_its_golden_texts(self):
        expected = json.loads((TEMPLATES / "expected.json").read_text(encoding="utf-8"))
        contexts = list(fixed_contexts())
        self.assertEqual(sorted(expected), sorted(p.stem for p in TEMPLATES.glob("*.jinja")))
        for name, texts in expected.items():
            source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
            answers = render_all([(source, context) for context in contexts])
            self.assertGreater(sum(text is not None for text in texts), 3, name)
            for context, text, answer in zip(contexts, texts, answers, strict=True):
                with self.subTest(name, context=context):
                    self.assertEqual(answer.get("text"), text, answer)


@unittest.skipIf(python_templates is None, "python3-jinja2 is not installed")
class AgainstPython(unittest.TestCase):
    def setUp(self):
        self.python = python_templates.PythonTemplates(NOW)
        self.cases = RandomCases(random.Random(SEED))

    def compare(self, cases, fewest_rendered):
        num_rendered = 0
        for (template, context), answer in zip(cases, render_all(cases), strict=True):
            want = self.python.render(template, context)
            num_rendered += want is not None
            self.assertEqual(answer.get("text"), want, f"seed {SEED}\n{template}\n{context}\n{answer}")
        self.assertGreater(num_rendered, fewest_rendered * len(cases))

    def test_random_conversations(self):
        sources = [path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.jinja"))]
        self.compare([(source, self.cases.context()) for source in sources for _ in range(60 * ROUNDS)], 0.3)

    def test_random_expressions(self):
        self.compare([("{{ " + self.cases.expression() + " }}", self.cases.expression_context())
                      for _ in range(6000 * ROUNDS)], 0.3)

    def test_random_programs(self):
        self.compare([(self.cases.statement_template(), self.cases.expression_context())
                      for _ in range(1500 * ROUNDS)], 0.3)

    @unittest.skipUnless(os.environ.get("TEMPLATES"), "TEMPLATES names no directory")
    def test_published_templates(self):
        contexts = list(fixed_contexts()) + [self.cases.context() for _ in range(40)]
        num_exact, num_refused, different = 0, [], []
        for path in sorted(pathlib.Path(os.environ["TEMPLATES"]).glob("*.jinja")):
            source = path.read_text(encoding="utf-8")
            answers = render_all([(source, context) for context in contexts])
            wants = [self.python.render(source, context) for context in contexts]
            wrong = [(context, want, answer) for context, want, answer in zip(contexts, wants, answers, strict=True)
                     if answer.get("text") != want]
            if all(want is None for want in wants):
                num_refused.append(path.name)
            elif wrong:
                different.append(path.name)
                context, want, answer = wrong[0]
                print(f"{path.name}: {len(wrong)} of {len(contexts)} differ\n  {answer.get('error') or answer['text']!r}\n  {want!r}")
            else:
                num_exact += 1
                print(f"{path.name}: exact, {sum(want is not None for want in wants)} texts")
        print(f"exact {num_exact}, different {different}, refused by Python always {num_refused}")


if __name__ == "__main__":
    run_main()
