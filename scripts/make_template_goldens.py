#!/usr/bin/env python3
"""Writes tests/golden/chat_templates/expected.json: every template there over every fixed conversation, as Python's
Jinja2 renders them (null: it refuses). Needs python3-jinja2. Review the difference before committing it."""
import json
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS / "integration"))
import python_templates  # noqa: E402 (its folder is known only now)
from template_cases import NOW, TEMPLATES, fixed_contexts  # noqa: E402


def main():
    python = python_templates.PythonTemplates(NOW)
    expected = {path.stem: [python.render(path.read_text(encoding="utf-8"), context) for context in fixed_contexts()]
                for path in sorted(TEMPLATES.glob("*.jinja"))}
    (TEMPLATES / "expected.json").write_text(json.dumps(expected, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
