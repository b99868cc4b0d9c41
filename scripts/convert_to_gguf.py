#!/usr/bin/env python3
"""Converts a model in Hugging Face's layout (Llama, Mistral, Qwen2, Qwen3) to a GGUF file. Python's standard
library is enough.

usage: scripts/convert_to_gguf.py MODEL_DIR OUT.gguf [--type as-is|F32|F16|Q8_0|Q4_0]

Matrices get the type (where a row is a whole number of blocks, else F16), vectors become F32. Q and K
rows of Llama and Mistral are reordered to the interleaved RoPE pairs of the format, which knows both as
"llama", a sliding window becomes keys; Llama-3's RoPE scaling becomes the tensor
rope_freqs.weight. The vocabulary comes from tokenizer.model, the chat template from
tokenizer_config.json, sampling defaults and end tokens from generation_config.json, each if there."""
import argparse
import json
import math
import pathlib
import struct

import gguf_format as gguf

NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}
ENDS = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight"}
SAMPLING = {"temperature": ("temp", gguf.F32), "top_p": ("top_p", gguf.F32), "min_p": ("min_p", gguf.F32),
            "top_k": ("top_k", gguf.I32), "repetition_penalty": ("penalty_repeat", gguf.F32)}
CONTROL, USER_DEFINED = 3, 4
ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2",
                 "Qwen3ForCausalLM": "qwen3"}


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_tensors(folder):
    """name: (path, offset, bytes, dtype, shape) of all safetensors files."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, info in header.items():
            if name != "__metadata__":
                begin, end = info["data_offsets"]
                tensors[name] = (path, 8 + length + begin, end - begin, info["dtype"], info["shape"])
    return tensors


def stored_bytes(tensor):
    path, offset, size, _, _ = tensor
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def interleaved(data, num_heads, rows):
    """Row i of a head's first half and of its second half become rows 2 i and 2 i + 1."""
    size = len(data) // rows
    head = rows // num_heads
    order = [h * head + half * (head // 2) + i
             for h in range(num_heads) for i in range(head // 2) for half in range(2)]
    return b"".join(data[row * size:(row + 1) * size] for row in order)


def gguf_name(name):
    if name in ENDS:
        return ENDS[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def architecture_of(config):
    (name,) = config["architectures"]
    return ARCHITECTURES[name]


def window_keys(config, architecture):
    """Of a sliding window: its size, and which layers have it where not all do."""
    window, first = config.get("sliding_window"), 0
    if architecture != "llama":
        window = window if config.get("use_sliding_window") else None
        first = config.get("max_window_layers", 0)
    if not window:
        return []
    keys = [gguf.key(architecture + ".attention.sliding_window", gguf.U32, window)]
    if first:
        layers = [layer >= first for layer in range(config["num_hidden_layers"])]
        keys.append(gguf.key(architecture + ".attention.sliding_window_pattern", gguf.ARRAY, layers, gguf.BOOL))
    return keys


def head_dim_of(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rope_divisors(config):
    """What Llama-3's scaling divides each frequency by; nothing for models without it."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type")) != "llama3":
        return None
    low, high, factor = (scaling[k] for k in ("low_freq_factor", "high_freq_factor", "factor"))
    dim, theta, divisors = head_dim_of(config), config.get("rope_theta", 10000.0), []
    for i in range(dim // 2):
        frequency = theta ** (-2 * i / dim)
        waves = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
        kept = min(1.0, max(0.0, (waves - low) / (high - low)))
        divisors.append(1 / ((1 - kept) / factor + kept))
    return divisors


def model_tensors(config, tensors, wanted):
    heads = {"self_attn.q_proj.weight": config["num_attention_heads"],
             "self_attn.k_proj.weight": config.get("num_key_value_heads") or config["num_attention_heads"]}
    if config.get("tie_word_embeddings"):  # one matrix, under the name of the embedding
        tensors = dict(tensors)
        head = tensors.pop("lm_head.weight", None)
        tensors.setdefault("model.embed_tokens.weight", head)
    is_reordered = architecture_of(config) == "llama" and not config.get("rope_interleaved")
    result = []
    for name, tensor in tensors.items():
        dtype, shape = tensor[3], tensor[4]
        form = "F32" if len(shape) == 1 else dtype if wanted == "as-is" else wanted
        if shape[-1] % gguf.FORMATS[form][1]:
            form = "F16"
        num_heads = heads.get(name.split(".", 3)[-1]) if is_reordered else None

        def data(tensor=tensor, dtype=dtype, shape=shape, form=form, num_heads=num_heads):
            raw = stored_bytes(tensor)
            return gguf.convert(interleaved(raw, num_heads, shape[0]) if num_heads else raw, dtype, form)

        result.append((gguf_name(name), tuple(shape), form, data))
    divisors = rope_divisors(config)
    if divisors:
        result.append(("rope_freqs.weight", (len(divisors),), "F32",
                       lambda: struct.pack(f"<{len(divisors)}f", *divisors)))
    return result


def model_keys(name, config):
    def count(key, value):
        return gguf.key(f"{architecture}.{key}", gguf.U32, value)

    architecture, heads = architecture_of(config), config["num_attention_heads"]
    keys = [gguf.key("general.architecture", gguf.STRING, architecture), gguf.key("general.name", gguf.STRING, name),
            gguf.key("general.quantization_version", gguf.U32, 2),
            count("block_count", config["num_hidden_layers"]),
            count("context_length", config["max_position_embeddings"]),
            count("embedding_length", config["hidden_size"]),
            count("feed_forward_length", config["intermediate_size"]), count("attention.head_count", heads),
            count("attention.head_count_kv", config.get("num_key_value_heads") or heads),
            count("attention.key_length", head_dim_of(config)),
            count("attention.value_length", head_dim_of(config)),
            count("rope.dimension_count", head_dim_of(config)), count("vocab_size", config["vocab_size"]),
            gguf.key(architecture + ".attention.layer_norm_rms_epsilon", gguf.F32, config.get("rms_norm_eps", 1e-6)),
            gguf.key(architecture + ".rope.freq_base", gguf.F32, config.get("rope_theta", 10000.0))]
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type")) == "linear":
        keys += [gguf.key(architecture + ".rope.scaling.type", gguf.STRING, "linear"),
                 gguf.key(architecture + ".rope.scaling.factor", gguf.F32, scaling["factor"])]
    return keys + window_keys(config, architecture)


def fields(data):
    """(number, value) of each field of a protocol-buffer message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        else:
            size = {1: 8, 5: 4}.get(tag & 7) or varint()
            yield tag >> 3, data[at:at + size]
            at += size


def vocabulary_keys(folder):
    path = folder / "tokenizer.model"
    if not path.exists():
        return []
    tokens, scores, types, flags = [], [], [], {3: 1, 4: 1}
    for number, value in fields(path.read_bytes()):
        if number == 1:
            piece = dict(fields(value))
            tokens.append(bytes(piece[1]))
            scores.append(struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0)
            types.append(piece.get(3, 1))
        elif number == 3:
            flags.update((n, v) for n, v in fields(value) if n in flags)
    settings = read_json(folder / "tokenizer_config.json")
    for token in settings.get("added_tokens_decoder", {}).values():
        if token.get("special") and token["content"].encode() in tokens:
            index = tokens.index(token["content"].encode())
            types[index] = CONTROL if types[index] == USER_DEFINED else types[index]
    keys = [gguf.key("tokenizer.ggml.model", gguf.STRING, "llama"),
            gguf.key("tokenizer.ggml.tokens", gguf.ARRAY, tokens, gguf.STRING),
            gguf.key("tokenizer.ggml.scores", gguf.ARRAY, scores, gguf.F32),
            gguf.key("tokenizer.ggml.token_type", gguf.ARRAY, types, gguf.I32),
            gguf.key("tokenizer.ggml.add_space_prefix", gguf.BOOL, bool(flags[3])),
            gguf.key("tokenizer.ggml.remove_extra_whitespaces", gguf.BOOL, bool(flags[4]))]
    if "add_bos_token" in settings:
        keys.append(gguf.key("tokenizer.ggml.add_bos_token", gguf.BOOL, settings["add_bos_token"]))
    if isinstance(settings.get("chat_template"), str):
        keys.append(gguf.key("tokenizer.chat_template", gguf.STRING, settings["chat_template"]))
    return keys


def generation_keys(config, generation):
    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = ends if isinstance(ends, list) else [ends]
    keys = [gguf.key(f"tokenizer.ggml.{kind}_token_id", gguf.U32, end)
            for kind, end in zip(("eos", "eot", "eom"), ends) if end is not None]
    bos = generation.get("bos_token_id", config.get("bos_token_id"))
    if bos is not None:
        keys.append(gguf.key("tokenizer.ggml.bos_token_id", gguf.U32, bos))
    for name, (key, kind) in SAMPLING.items():
        if generation.get(name) is not None:
            keys.append(gguf.key("general.sampling." + key, kind, generation[name]))
    return keys


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path, help="directory with config.json and safetensors")
    parser.add_argument("out", type=pathlib.Path, help="the GGUF file that is written")
    parser.add_argument("--type", default="as-is", choices=["as-is", "F32", "F16", "Q8_0", "Q4_0"])
    args = parser.parse_args()
    config = read_json(args.model / "config.json")
    keys = model_keys(args.model.name, config) + vocabulary_keys(args.model)
    keys += generation_keys(config, read_json(args.model / "generation_config.json"))
    gguf.write(args.out, keys, model_tensors(config, read_tensors(args.model), args.type))


if __name__ == "__main__":
    main()
