"""A directory as Hugging Face publishes it, served as it is: sharded safetensors of another family than
Llama, the vocabulary in tokenizer.json; and the settings that round weights and caches."""
import json
import pathlib
import shutil
import struct
import tempfile
import unittest

from sluice_process import SOURCE, SluiceServer, config_with, run_main

GOLDEN = SOURCE / "tests" / "golden" / "tiny_llama"


def byte_level_json(extra):
    """A vocabulary of bytes, a few merges, and added tokens behind them."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in itself]
    words = [chr(byte) for byte in itself] + [chr(0x100 + i) for i in range(len(others))]
    merges = ["h e", "l l", "he ll", "hell o", "\u0120 w", "o r"]
    words += [merge.replace(" ", "") for merge in merges]
    added = [{"id": len(words) + i, "content": text, "special": True} for i, text in enumerate(extra)]
    return {"version": "1.0", "added_tokens": added, "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            "post_processor": None, "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {word: i for i, word in enumerate(words)}, "merges": merges}}


def widen_rows(source, target, rows):
    """The tiny Mistral with a vocabulary of `rows` rows, some of which no token has."""
    config = json.loads((source / "config.json").read_text())
    old, config["vocab_size"] = config["vocab_size"], rows
    config["eos_token_id"] = 262
    (target / "config.json").write_text(json.dumps(config))
    for path in source.glob("*.safetensors"):
        raw = path.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        header, data, out = json.loads(raw[8:8 + length]), raw[8 + length:], b""
        for info in header.values():
            if "data_offsets" not in info:
                continue
            begin, end = info["data_offsets"]
            part = data[begin:end]
            if info["shape"][0] == old:
                size = len(part) // old
                part = b"".join(part[row % old * size:][:size] for row in range(rows))
                info["shape"][0] = rows
            info["data_offsets"] = [len(out), len(out) + len(part)]
            out += part
        text = json.dumps(header).encode()
        (target / path.name).write_bytes(struct.pack("<Q", len(text)) + text + out)
    shutil.copy(source / "model.safetensors.index.json", target)


class ModelDirectory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-directory-"))
        widen_rows(GOLDEN / "mistral_window", cls.home, 280)
        (cls.home / "tokenizer.json").write_text(json.dumps(byte_level_json(["<|end|>"])), encoding="utf-8")
        (cls.home / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.home)

    def answers(self, **settings):
        model = {"name": "tiny", "kind": "llama", "path": str(self.home), "context_tokens": 256, **settings}
        body = {"model": "tiny", "prompt": "hello world <|end|>", "max_tokens": 60, "temperature": 0.8, "seed": 5}
        with SluiceServer(config_with(models=[model])) as server:
            return [server.post("/v1/completions", body).json() for _ in range(2)]

    def test_it_is_served_with_its_own_vocabulary(self):
        first, again = self.answers()
        self.assertEqual(first["usage"]["prompt_tokens"], 13)  # hello; " w" or l d; bytes of " <|", end, "|>"
        self.assertEqual(first["choices"], again["choices"])
        self.assertIn(first["choices"][0]["finish_reason"], ("length", "stop"))

    def test_rounded_weights_and_caches_answer_alike_twice_and_say_so(self):
        plain = self.answers()[0]
        for settings, end in (({"kv_type": "f16"}, "_kv-f16"), ({"kv_type": "int8"}, "_kv-int8"),
                              ({"quantize": "int8", "threads": 2}, "")):
            with self.subTest(settings):
                first, again = self.answers(**settings)
                self.assertEqual(first["choices"], again["choices"])
                self.assertNotEqual(first["system_fingerprint"], plain["system_fingerprint"])
                self.assertTrue(first["system_fingerprint"].endswith(end))


if __name__ == "__main__":
    run_main()
