"""Chat templates as Python renders them: the environment that transformers builds around Jinja2, but that lists may
be changed."""
import datetime
import json

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class Raised(jinja2.TemplateError):
    """raise_exception() of a template."""


class Generation(jinja2.ext.Extension):
    """{% generation %} marks the assistant's part for training: rendered in a scope of its own."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise Raised(message)


class PythonTemplates:
    def __init__(self, now):
        self.environment = jinja2.sandbox.SandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation])
        self.environment.filters["tojson"] = to_json
        self.environment.globals["raise_exception"] = raise_exception
        time = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
        self.environment.globals["strftime_now"] = time.strftime

        self.source, self.compiled = None, None

    def render(self, template, context):
        """The text, or None where Jinja2 or the template refuses."""
        try:
            if template != self.source:
                self.source, self.compiled = None, self.environment.from_string(template)
                self.source = template
            return self.compiled.render(**context)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError):
            return None
