#!/usr/bin/env python3
"""Writes the committed corpus of gguf_fuzz: small honest files and each kind of lie about a size.

usage: tests/fuzz/make_gguf_corpus.py [FOLDER]   (tests/fuzz/corpus/gguf)"""
import pathlib
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import gguf_format as gguf  # noqa: E402 (its folder is known only now)

HUGE = 2 ** 64 - 1


def vocabulary():
    words = [b"<unk>", b"<s>", b"</s>", b"<|im_end|>", "\u2581a".encode()]
    return [gguf.key("tokenizer.ggml.model", gguf.STRING, "llama"),
            gguf.key("tokenizer.ggml.tokens", gguf.ARRAY, words, gguf.STRING),
            gguf.key("tokenizer.ggml.scores", gguf.ARRAY, [0, 0, 0, 0, -1.5], gguf.F32),
            gguf.key("tokenizer.ggml.token_type", gguf.ARRAY, [2, 3, 3, 4, 1], gguf.I32),
            gguf.key("tokenizer.ggml.bos_token_id", gguf.U32, 1),
            gguf.key("tokenizer.ggml.eos_token_id", gguf.U32, 2),
            gguf.key("tokenizer.ggml.add_bos_token", gguf.BOOL, True),
            gguf.key("tokenizer.chat_template", gguf.STRING, "{{ '<|im_start|>' }}")]


def byte_level_vocabulary():
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in itself]
    words = [chr(byte) for byte in itself] + [chr(0x100 + i) for i in range(len(others))]
    words += ["ab", "\u0120a", "<|end|>"]
    return [gguf.key("tokenizer.ggml.model", gguf.STRING, "gpt2"),
            gguf.key("tokenizer.ggml.pre", gguf.STRING, "llama-bpe"),
            gguf.key("tokenizer.ggml.tokens", gguf.ARRAY, words, gguf.STRING),
            gguf.key("tokenizer.ggml.token_type", gguf.ARRAY, [1] * 258 + [3], gguf.I32),
            gguf.key("tokenizer.ggml.merges", gguf.ARRAY, ["a b", "\u0120 a"], gguf.STRING),
            gguf.key("tokenizer.ggml.eos_token_id", gguf.U32, 258)]


def small_model():
    """One layer: hidden size 4, two heads of 2, one of keys and values."""
    keys = [gguf.key("general.architecture", gguf.STRING, "llama"),
            gguf.key("llama.block_count", gguf.U32, 1), gguf.key("llama.context_length", gguf.U32, 64),
            gguf.key("llama.embedding_length", gguf.U32, 4),
            gguf.key("llama.feed_forward_length", gguf.U32, 3),
            gguf.key("llama.attention.head_count", gguf.U32, 2),
            gguf.key("llama.attention.head_count_kv", gguf.U32, 1),
            gguf.key("llama.attention.layer_norm_rms_epsilon", gguf.F32, 1e-5),
            gguf.key("llama.rope.freq_base", gguf.F32, 10000), gguf.key("llama.rope.dimension_count", gguf.U32, 2)]
    shapes = {"token_embd": (5, 4), "blk.0.attn_norm": (4,), "blk.0.attn_q": (4, 4), "blk.0.attn_k": (2, 4),
              "blk.0.attn_v": (2, 4), "blk.0.attn_output": (4, 4), "blk.0.ffn_norm": (4,),
              "blk.0.ffn_gate": (3, 4), "blk.0.ffn_up": (3, 4), "blk.0.ffn_down": (4, 3), "output_norm": (4,)}
    tensors = [(name + ".weight", shape, "F32", lambda size=gguf.num_bytes(shape, "F32"): bytes(size))
               for name, shape in shapes.items()]
    return keys + vocabulary(), tensors


def blocks():
    shapes = {"Q8_0": (2, 32), "Q4_0": (1, 64), "Q4_K": (1, 256), "Q5_K": (256,), "Q6_K": (1, 256), "BF16": (3,),
              "F16": (2, 2)}
    return [(form.lower(), shape, form, lambda size=gguf.num_bytes(shape, form): bytes(size))
            for form, shape in shapes.items()]


def head(num_tensors, num_keys, rest=b"", version=3):
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys) + rest


def tensor(name, dims, kind, offset):
    return gguf.string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def array(element, count, rest=b""):
    return gguf.string("a") + struct.pack("<IIQ", gguf.ARRAY, element, count) + rest


LIES = {
    "empty_v2": head(0, 0, version=2),
    "tensors_2_64": head(HUGE, 0),
    "keys_2_64": head(0, HUGE),
    "key_length_2_64": head(0, 1, struct.pack("<Q", HUGE) + b"key"),
    "text_length_2_64": head(0, 1, gguf.string("k") + struct.pack("<IQ", gguf.STRING, HUGE)),
    "array_wraps": head(0, 1, array(gguf.F64, 2 ** 61 + 1, bytes(8))),
    "array_of_texts_2_64": head(0, 1, array(gguf.STRING, HUGE, bytes(16))),
    "array_of_arrays": head(0, 1, array(gguf.ARRAY, 1, struct.pack("<IQ", gguf.U8, 0))),
    "elements_wrap": head(1, 0, tensor("t", (2 ** 32, 2 ** 32), 0, 0)),
    "blocks_wrap": head(1, 0, tensor("t", (2 ** 63,), 14, 0)),
    "half_a_block": head(1, 0, tensor("t", (33,), 8, 0) + bytes(64)),
    "offset_2_64": head(1, 0, tensor("t", (1,), 0, HUGE - 31) + bytes(64)),
    "overlap": head(2, 0, tensor("t", (8,), 0, 0) + tensor("u", (8,), 0, 0) + bytes(96)),
    "twins": head(2, 0, tensor("t", (8,), 0, 0) + tensor("t", (8,), 0, 32) + bytes(96)),
    "big_endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
}


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "tests" / "fuzz" / "corpus" / "gguf")
    folder.mkdir(parents=True, exist_ok=True)
    gguf.write(folder / "small_model", *small_model())
    gguf.write(folder / "vocabulary", vocabulary(), [])
    gguf.write(folder / "byte_level", byte_level_vocabulary(), [])
    gguf.write(folder / "blocks", [gguf.key("general.alignment", gguf.U32, 32)], blocks())
    for name, data in LIES.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
