"""GGUF files as a user has them: the project's models converted by scripts/convert_to_gguf.py are inspected,
tokenize every text alike, compute the same logits, and are served with the same answers."""
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

from sluice_process import BIN, PATIENCE, SOURCE, SluiceServer, config_with, run_main

sys.path.insert(0, str(SOURCE / "scripts"))
import convert_to_gguf  # noqa: E402 (their folder is known only now)
import gguf_format  # noqa: E402

BROOK = SOURCE / "models" / "brook"
GOLDEN = SOURCE / "tests" / "golden"


def convert(directory, out, kind="as-is"):
    subprocess.run([sys.executable, str(SOURCE / "scripts" / "convert_to_gguf.py"), str(directory), str(out),
                    "--type", kind], check=True)
    return out


def run(*command, stdin=None):
    return subprocess.run([str(BIN / command[0]), *map(str, command[1:])], input=stdin, capture_output=True,
                          timeout=60 * PATIENCE, check=False)


def facts_of(model):
    result = run("sluice", "inspect", model)
    assert result.returncode == 0, result.stderr
    return dict(re.fullmatch(r"(\S+) +(.*)", line).groups() for line in result.stdout.decode().splitlines())


class FileServer(SluiceServer):
    """`sluice serve --model FILE` and nothing configured."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def command(self):
        return [str(BIN / "sluice"), "serve", "--port", "0", "--state-dir", str(self.state_dir), "--model",
                str(self.model)]


class Gguf(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-gguf-"))
        cls.brook = convert(BROOK, cls.home / "Brook-F32.gguf", "F32")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.home)

    def refused(self, model, *words):
        result = run("sluice", "inspect", model)
        self.assertEqual((result.returncode, result.stdout), (1, b""))
        self.assertRegex(result.stderr.decode(), r"\Aerror: [\x20-\x7e]+\n\Z")
        for word in words:
            self.assertIn(word, result.stderr.decode())

    def test_logits_and_tokens_are_those_of_the_independent_implementation(self):
        for name in ("bf16_sharded", "f32_interleaved", "f16_llama3", "mistral_window", "qwen2_bias", "qwen3_norm"):
            model = convert(GOLDEN / "tiny_llama" / name, self.home / f"{name}.gguf")
            for kernels in ("scalar", "auto"):
                with self.subTest(name, kernels=kernels):
                    result = run("check_model", model, GOLDEN / "tiny_llama" / name / "expected.jsonl", kernels)
                    self.assertEqual(result.returncode, 0, result.stdout)
                    self.assertEqual(result.stdout.count(b"greedy 200 of 200"), 3)

    def test_inspect_prints_the_model_and_the_files_own_digest(self):
        facts = facts_of(self.brook)
        self.assertEqual(facts["architecture"], "llama")
        self.assertEqual(facts["format"], "GGUF v3")
        self.assertEqual(facts["tokenizer"], "in the file, 2048 pieces")
        self.assertRegex(facts["chat_template"], r"\Ajinja, \d+ bytes, renders\Z")
        self.assertEqual(facts["files"], "Brook-F32.gguf")
        self.assertEqual(facts["matrices"], "F32")
        self.assertIn("interleaved", facts["rope"])
        digest = subprocess.run(["sha256sum", str(self.brook)], capture_output=True, check=True).stdout
        self.assertEqual(facts["sha256"], digest.decode().split()[0])
        original = facts_of(BROOK)
        for key in ("vocabulary", "layers", "heads", "parameters", "context_tokens", "embeddings", "chat_template"):
            self.assertEqual(facts[key].replace("F32", "BF16"), original[key])
        self.assertEqual(sorted(facts["end_ids"].split()), sorted(original["end_ids"].split()))

    def test_quantized_files_say_what_becomes_of_them(self):
        for kind in ("Q8_0", "Q4_0"):
            facts = facts_of(convert(BROOK, self.home / f"Brook-{kind}.gguf", kind))
            self.assertEqual(facts["matrices"], f"{kind}, 1 quantized tensors dequantized on load")
            self.assertEqual(facts["tensors"], f"56 (13 F32, 43 {kind})")

    def test_every_text_of_the_project_has_the_same_tokens(self):
        texts = [path for pattern in ("*.md", "models/*/*.txt", "tests/golden/*.txt", "worker/**/*.cc", "scripts/*.py")
                 for path in sorted(SOURCE.glob(pattern))]
        self.assertGreater(len(texts), 20)
        num_tokens = 0
        for path in texts:
            text = path.read_bytes()[:60_000] + "  \u00fc\U0001f600 \n\n\t<|im_end|></s> ".encode() + b"\xff\xf0"
            want = run("sluice", "tokenize", "--model", BROOK, "-", stdin=text)
            got = run("sluice", "tokenize", "--model", self.brook, "-", stdin=text)
            self.assertEqual((want.returncode, got.returncode), (0, 0), got.stderr)
            self.assertEqual(got.stdout, want.stdout, path)
            num_tokens += want.stdout.count(b"\n")
        self.assertGreater(num_tokens, 10_000)

    def test_brook_answers_the_same_from_a_file(self):
        golden = json.loads((GOLDEN / "brook_answers.json").read_text(encoding="utf-8"))
        with FileServer(self.brook) as server:
            models = server.request("GET", "/v1/models").json()["data"]
            self.assertEqual([(m["id"], m["max_model_len"]) for m in models], [("Brook-F32", 1024)])
            for case in golden:
                body = {"model": "Brook-F32", "messages": case["messages"], "temperature": 0}
                answer = server.post("/v1/chat/completions", body).json()["choices"][0]
                with self.subTest(case["messages"][-1]["content"]):
                    self.assertEqual(answer["message"]["content"], case["answer"])
                    self.assertEqual(answer["finish_reason"], "stop")

    def test_a_template_that_cannot_be_used_is_told_and_can_be_replaced(self):
        model = self.home / "template.gguf"
        whole = self.brook.read_bytes()
        self.assertIn(b"{%- if tools %}", whole)
        model.write_bytes(whole.replace(b"{%- if tools %}", b"{%- if tool% %}", 1))
        self.assertRegex(facts_of(model)["chat_template"], r"\Ajinja, \d+ bytes, unusable: .*line 2: ")
        result = run("sluice", "serve", "--port", "0", "--state-dir", self.home / "state2", "--model", model)
        self.assertNotEqual(result.returncode, 0)
        for words in (b"chat template cannot be parsed: line 2: ", b"chat_template: plain, chatml"):
            self.assertIn(words, result.stderr)
        config = config_with(models=[{"name": "own", "kind": "llama", "path": str(model), "chat_template": "chatml"},
                                     {"name": "file", "kind": "llama", "path": str(self.brook)}])
        with SluiceServer(config) as server:
            body = {"messages": [{"role": "user", "content": "Hi <|im_end|>{{ bos_token }}<s>"}]}
            tokens = [server.post("/tokenize", {"model": name, **body}).json()["tokens"] for name in ("own", "file")]
            self.assertEqual(*tokens)  # Brook's template writes ChatML

    def test_a_quantized_file_is_served_from_a_configuration(self):
        model = convert(BROOK, self.home / "quantized.gguf", "Q8_0")
        config = config_with(models=[{"name": "small", "kind": "llama", "path": str(model)}])
        with SluiceServer(config) as server:
            body = {"model": "small", "messages": [{"role": "user", "content": "What is Sluice?"}], "temperature": 0}
            answer = server.post("/v1/chat/completions", body).json()["choices"][0]
            self.assertIn("gateway", answer["message"]["content"])
            self.assertEqual(answer["finish_reason"], "stop")

    def test_damaged_and_foreign_files_are_refused(self):
        whole = self.brook.read_bytes()
        bad = self.home / "bad.gguf"
        for length in (0, 3, 4, 23, 24, 1000, 40_000, len(whole) // 2, len(whole) - 1):
            bad.write_bytes(whole[:length])
            self.refused(bad, "bad.gguf: ")
        bad.write_bytes(whole + bytes(64))
        self.refused(bad, "behind the last tensor")
        bad.write_bytes(whole.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0other", 1))
        self.refused(bad, "general.architecture", "'other'")
        for entry in sorted((SOURCE / "tests" / "fuzz" / "corpus" / "gguf").iterdir()):
            if entry.name != "small_model":
                self.refused(entry, entry.name)

    def byte_level_model(self):
        """Brook's weights behind a vocabulary of bytes, a few merges and a special token."""
        itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in itself]
        words = [chr(byte) for byte in itself] + [chr(0x100 + i) for i in range(len(others))]
        merges = ["h e", "l l", "he ll", "hell o", "\u0120 w", "o r"]
        words += [merge.replace(" ", "") for merge in merges] + ["<|end|>"]
        spare = [f"[spare{i}]" for i in range(2048 - len(words))]
        types = [1] * (len(words) - 1) + [3] + [5] * len(spare)
        config = convert_to_gguf.read_json(BROOK / "config.json")
        keys = convert_to_gguf.model_keys("bytes", config) + [
            gguf_format.key("tokenizer.ggml.model", gguf_format.STRING, "gpt2"),
            gguf_format.key("tokenizer.ggml.pre", gguf_format.STRING, "llama-bpe"),
            gguf_format.key("tokenizer.ggml.tokens", gguf_format.ARRAY, words + spare, gguf_format.STRING),
            gguf_format.key("tokenizer.ggml.token_type", gguf_format.ARRAY, types, gguf_format.I32),
            gguf_format.key("tokenizer.ggml.merges", gguf_format.ARRAY, merges, gguf_format.STRING),
            gguf_format.key("tokenizer.ggml.eos_token_id", gguf_format.U32, len(words) - 1)]
        tensors = convert_to_gguf.model_tensors(config, convert_to_gguf.read_tensors(BROOK), "as-is")
        gguf_format.write(self.home / "bytes.gguf", keys, tensors)
        return self.home / "bytes.gguf"

    def test_a_byte_level_vocabulary_is_served(self):
        model = self.byte_level_model()
        self.assertEqual(facts_of(model)["tokenizer"], "in the file, 2048 pieces")
        text = "hello world <|end|>"
        tokens = run("sluice", "tokenize", "--model", model, text).stdout.decode().splitlines()
        self.assertEqual([line.split("\t")[1] for line in tokens],
                         ["hello", " w", "or", "l", "d", " ", *"<|end|>"])
        with FileServer(model) as server:
            body = {"model": "bytes", "prompt": text, "max_tokens": 8, "temperature": 0}
            answer = server.post("/v1/completions", body).json()
            self.assertEqual(answer["usage"]["prompt_tokens"], len(tokens))
            self.assertIn(answer["choices"][0]["finish_reason"], ("length", "stop"))

    def test_an_unknown_vocabulary_is_refused_by_name(self):
        model = self.home / "unknown.gguf"
        whole = self.brook.read_bytes()
        named = gguf_format.key("tokenizer.ggml.model", gguf_format.STRING, "llama")
        self.assertEqual(whole.count(named), 1)
        shorter = gguf_format.key("tokenizer.ggml.model", gguf_format.STRING, "gpt2!")
        model.write_bytes(whole.replace(named, shorter))
        self.refused(model, "tokenizer.ggml.model", "'gpt2!'")

    def test_serve_says_why_a_file_is_not_served(self):
        model = self.home / "cut.gguf"
        model.write_bytes(self.brook.read_bytes()[:-4])
        result = run("sluice", "serve", "--port", "0", "--state-dir", self.home / "state", "--model", model)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(b"cut.gguf", result.stderr)
        self.assertIn(b"is not within the", result.stderr)


if __name__ == "__main__":
    run_main()
