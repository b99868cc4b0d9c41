"""`sluice inspect` as a process over good and bad model directories: a bad one costs one line that names
file, tensor and reason, and exit code 1; never a crash, never much memory or time."""
import json
import os
import pathlib
import re
import resource
import shutil
import struct
import subprocess
import tempfile
import unittest

import sluice_process
from seeded_model import write_seeded_model
from sluice_process import BIN, PATIENCE, SOURCE

GOLDEN = SOURCE / "tests" / "golden" / "tiny_llama"
CORPUS = SOURCE / "tests" / "fuzz" / "corpus"
MEMORY_MAX = 1 << 30


def bound_memory():
    if PATIENCE == 1:  # sanitizers reserve terabytes of addresses
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))


def inspect(directory, program=("sluice", "inspect")):
    return subprocess.run([str(BIN / program[0]), *program[1:], str(directory)], capture_output=True,
                          text=True, timeout=20 * PATIENCE, preexec_fn=bound_memory, check=False)


def split_safetensors(data):
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8:8 + length]), data[8 + length:]


def join_safetensors(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Inspect(unittest.TestCase):
    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-inspect-"))
        self.model = write_seeded_model(self.home / "model")
        self.weights = self.model / "model.safetensors"

    def tearDown(self):
        shutil.rmtree(self.home)

    def facts_of(self, directory):
        result = inspect(directory)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return dict(re.fullmatch(r"(\S+) +(.*)", line).groups() for line in result.stdout.splitlines())

    def refused(self, *words, directory=None):
        result = inspect(directory or self.model)
        self.assertEqual(result.returncode, 1, result)
        self.assertEqual(result.stdout, "")
        self.assertRegex(result.stderr, r"\Aerror: [\x20-\x7e]+\n\Z")
        self.assertLess(len(result.stderr), 600)
        for word in words:
            self.assertIn(word, result.stderr)
        return result.stderr

    def change_header(self, change):
        header, data = split_safetensors(self.weights.read_bytes())
        change(header)
        self.weights.write_bytes(join_safetensors(header, data))

    def change_config(self, **changes):
        path = self.model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def test_a_good_directory(self):
        facts = self.facts_of(self.model)
        self.assertEqual(facts["architecture"], "LlamaForCausalLM")
        self.assertEqual(facts["layers"], "3")
        self.assertEqual(facts["tokenizer"], f"tokenizer.model, {facts['vocabulary']} pieces")
        self.assertRegex(facts["kernel_paths"], r"scalar$")
        lines = subprocess.run(["sha256sum", "config.json", "model.safetensors"], cwd=self.model,
                               capture_output=True, check=True).stdout
        digest = subprocess.run(["sha256sum"], input=lines, capture_output=True, check=True).stdout
        self.assertEqual(facts["sha256"], digest.decode().split()[0])
        # The worker's program is what answers.
        self.assertEqual(inspect(self.model, ("sluice-worker", "inspect")).stdout,
                         inspect(self.model).stdout)

    def test_sharded_directories_without_a_tokenizer(self):
        for name, shards in (("bf16_sharded", 3), ("f16_llama3", 1), ("f32_interleaved", 1)):
            facts = self.facts_of(GOLDEN / name)
            self.assertEqual(facts["files"].count("safetensors"), shards)
            self.assertIn("none", facts["tokenizer"])

    def test_missing_and_wrong_kinds_of_file(self):
        self.refused("config.json", "No such file", directory=self.home / "nowhere")
        self.refused("model.safetensors", "is not a GGUF file", directory=self.weights)  # not a directory
        self.weights.rename(self.home / "aside")
        self.refused("model.safetensors", "No such file")
        os.mkfifo(self.weights)
        self.refused("model.safetensors", "not a regular file")
        self.weights.unlink()
        self.weights.symlink_to(self.weights.name)
        self.refused("model.safetensors")

    def test_truncated_at_many_lengths(self):
        whole = self.weights.read_bytes()
        (header,) = struct.unpack_from("<Q", whole)
        for length in (0, 7, 8, 9, 8 + header // 2, 8 + header, 9 + header, len(whole) // 2,
                       len(whole) - 1):
            self.weights.write_bytes(whole[:length])
            self.refused("model.safetensors")
        self.weights.write_bytes(whole + b"\0")
        self.refused("model.safetensors")

    def test_a_tensor_that_is_missing_misshapen_or_of_another_type_is_named(self):
        name = "model.layers.1.mlp.gate_proj.weight"
        whole = self.weights.read_bytes()
        for change, words in (
                (lambda h: h[name].update(dtype="F32"), ("model.safetensors", name)),
                (lambda h: h[name].update(dtype="Q4_0"), ("model.safetensors", name)),
                (lambda h: h[name].update(shape=[352, 127]), ("model.safetensors", name)),
                (lambda h: h[name]["shape"].reverse(), ("model.safetensors", name, "shape")),
                (lambda h: h[name].update(shape=[2 ** 32, 2 ** 32]), ("model.safetensors", name)),
                (lambda h: h[name].update(shape=[-1, 128]), ("model.safetensors", name)),
                (lambda h: h[name].update(data_offsets=[0, 2 ** 63]), ("model.safetensors", name)),
                (lambda h: h[name].update(data_offsets=[8, 4]), ("model.safetensors", name)),
                (lambda h: h.update({"x": h.pop(name)}), ("tensor",))):
            self.weights.write_bytes(whole)
            self.change_header(change)
            self.refused(*words)

    def test_headers_made_to_hurt(self):
        _, data = split_safetensors(self.weights.read_bytes())
        entry = b'{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
        for header in (b"", b"{", b"[]", b"null", b"\xff" * 64, b"{" * 200, b'{"a":' * 5000,
                       b'{"a":' + entry + b',"a":' + entry + b"}",
                       b"{" + b",".join(b'"%d":' % i + entry for i in range(100_000)) + b"}",
                       b'{"' + b"n" * 1_000_000 + b'":' + entry + b"}"):
            self.weights.write_bytes(join_safetensors(header, data))
            self.refused("model.safetensors")
        for length in (2 ** 63, 2 ** 64 - 1, 2 ** 64 - 8, 100_000_001, 1 << 40):
            self.weights.write_bytes(struct.pack("<Q", length) + b"{}" + data)
            self.refused("model.safetensors", "header")

    def test_names_cannot_move_the_terminals_cursor(self):
        name = "model.layers.1.mlp.gate_proj.weight"
        self.change_header(lambda h: h.update({"\x1b[2Jevil\nline": h.pop(name)}))
        self.refused("tensor")  # one line of printable characters

    def test_every_entry_of_the_fuzz_corpora(self):
        whole = self.weights.read_bytes()
        for entry in sorted((CORPUS / "safetensors").iterdir()):
            self.weights.write_bytes(entry.read_bytes())
            self.refused("model.safetensors")
        self.weights.write_bytes(whole)
        for entry in sorted((CORPUS / "model_config").iterdir()):
            shutil.copy(entry, self.model / "config.json")
            self.refused()

    def test_configurations(self):
        config = (self.model / "config.json").read_text()
        for changes, key in (
                ({"hidden_size": 0}, "hidden_size"), ({"hidden_size": 2 ** 40}, "hidden_size"),
                ({"num_hidden_layers": 10 ** 9}, "num_hidden_layers"),
                ({"num_attention_heads": 7}, "num_attention_heads"),
                ({"num_key_value_heads": 3}, "num_key_value_heads"),
                ({"vocab_size": -1}, "vocab_size"), ({"vocab_size": "many"}, "vocab_size"),
                ({"rms_norm_eps": 1e300}, "rms_norm_eps"),
                ({"architectures": ["GPT2LMHeadModel"]}, "architectures"),
                ({"attention_bias": True}, "attention_bias"),
                ({"quantization_config": {"bits": 4}}, "quantization_config")):
            (self.model / "config.json").write_text(config)
            self.change_config(**changes)
            self.refused("config.json", key)
        for text in ("", "{", "[" * 100_000, '{"hidden_size": 1' + "0" * 10_000 + "}", "\0" * 64):
            (self.model / "config.json").write_text(text)
            self.refused("config.json")

    def test_indices(self):
        model = self.home / "sharded"
        shutil.copytree(GOLDEN / "bf16_sharded", model)
        index = model / "model.safetensors.index.json"
        whole = json.loads(index.read_text())
        name = "model.norm.weight"
        for where in ("../escape.safetensors", "/etc/passwd", "absent.safetensors", "", 7, None):
            index.write_text(json.dumps({"weight_map": {**whole["weight_map"], name: where}}))
            self.refused(directory=model)
        for text in ("", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000):
            index.write_text(text)
            self.refused("model.safetensors.index.json", directory=model)

    def test_tokenizers(self):
        tokenizer = self.model / "tokenizer.model"
        whole = tokenizer.read_bytes()
        for data in (b"", whole[:-1], whole[:len(whole) // 2], b"\xff" * 1000, bytes(1000)):
            tokenizer.write_bytes(data)
            self.refused("tokenizer.model")
        tokenizer.write_bytes(whole)
        self.change_config()
        other = self.home / "other"
        shutil.copytree(GOLDEN / "f32_interleaved", other)
        shutil.copy(tokenizer, other)
        self.refused("tokenizer.model", "pieces", directory=other)

    def test_arguments(self):
        result = subprocess.run([str(BIN / "sluice"), "inspect"], capture_output=True, text=True,
                                check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn("model", result.stdout + result.stderr)


if __name__ == "__main__":
    sluice_process.run_main()
