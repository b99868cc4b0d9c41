"""Holds answers against a served OpenAPI 3.1 document: which operation a request is, whether its status is
documented, whether the body follows the schema. The part of JSON Schema that the document uses; an unknown
keyword is an error, so that nothing is passed by unseen. Standard library only."""
import json
import re

KEYWORDS = {"$ref", "type", "required", "properties", "additionalProperties", "items", "enum", "pattern",
            "minimum", "maximum", "maxLength", "maxItems", "anyOf", "description"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def has_type(value, name):
    if name in ("integer", "number"):
        allowed = int if name == "integer" else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


class Document:
    def __init__(self, text):
        self.document = json.loads(text)
        assert self.document["openapi"].startswith("3.1"), self.document["openapi"]
        self.schemas = self.document["components"]["schemas"]
        self.unseen = {operation["operationId"] for path in self.document["paths"].values()
                       for operation in path.values()}

    def operations(self):
        return [(method.upper(), path, operation) for path, methods in self.document["paths"].items()
                for method, operation in methods.items()]

    def find(self, method, target):
        path = target.split("?")[0]
        for known, known_path, operation in self.operations():
            pattern = re.sub(r"\{\w+\}", "(?:[^/]+)", re.sub(r"[.]", r"\\.", known_path))
            if known == ("GET" if method == "HEAD" else method) and re.fullmatch(pattern, path):
                return operation
        return None

    def fault(self, value, schema, at="body"):
        """What is wrong with `value`; None: nothing."""
        unknown = set(schema) - KEYWORDS
        assert not unknown, f"schema keywords {unknown}"
        if "$ref" in schema:
            return self.fault(value, self.schemas[schema["$ref"].split("/")[-1]], at)
        if "anyOf" in schema:
            faults = [self.fault(value, one, at) for one in schema["anyOf"]]
            return None if None in faults else faults[0]
        if "type" in schema:
            names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            if not any(has_type(value, name) for name in names):
                return f"{at}: {value!r} is not {names}"
        if "enum" in schema and value not in schema["enum"]:
            return f"{at}: {value!r} is not in {schema['enum']}"
        if isinstance(value, str):
            if "pattern" in schema and not re.search(schema["pattern"], value):
                return f"{at}: {value!r} does not match"
            if len(value) > schema.get("maxLength", len(value)):
                return f"{at}: too long"
        if has_type(value, "number"):
            if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
                return f"{at}: {value} is out of range"
        if isinstance(value, list):
            if len(value) > schema.get("maxItems", len(value)):
                return f"{at}: too many"
            for index, item in enumerate(value):
                if wrong := self.fault(item, schema.get("items", {}), f"{at}[{index}]"):
                    return wrong
        if isinstance(value, dict):
            return self.object_fault(value, schema, at)
        return None

    def object_fault(self, value, schema, at):
        for name in schema.get("required", []):
            if name not in value:
                return f"{at}: {name} is missing"
        known = schema.get("properties", {})
        for name, item in value.items():
            if name in known:
                if wrong := self.fault(item, known[name], f"{at}.{name}"):
                    return wrong
            elif schema.get("additionalProperties") is False:
                return f"{at}: {name} is not documented"
        return None

    def check(self, method, target, response, body=None):
        """Fails where the answer is not what the document says. Unknown routes must be answered as such."""
        operation = self.find(method, target)
        if operation is None:
            assert response.status in (404, 405), f"{method} {target}: {response.status}, not documented"
            return
        self.unseen.discard(operation["operationId"])
        responses = operation["responses"]
        where = f"{method} {target} -> {response.status}"
        assert str(response.status) in responses, f"{where}: documented are {sorted(responses)}"
        answer = responses[str(response.status)]
        if "$ref" in answer:
            answer = self.document["components"]["responses"][answer["$ref"].split("/")[-1]]
        kind = response.headers.get("content-type", "").split(";")[0]
        assert kind in answer["content"], f"{where}: {kind}"
        for name in answer.get("headers", {}):
            assert name.lower() in response.headers, f"{where}: no {name}"
        schema = answer["content"][kind].get("schema")
        if schema and method != "HEAD":
            wrong = self.fault(response.json(), schema)
            assert wrong is None, f"{where}: {wrong}"
        # What was accepted must be what the document says is accepted.
        if response.status < 300 and isinstance(body, dict):
            wanted = operation["requestBody"]["content"]["application/json"]["schema"]
            wrong = self.fault(body, wanted)
            assert wrong is None, f"{where}: accepted a body that is not documented: {wrong}"
