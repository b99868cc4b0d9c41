#!/usr/bin/python3
"""Tiny seeded models of the Llama family in Hugging Face's layout, and expected outputs of any such model.

The forward pass here is an independent implementation in PyTorch, in float64, one sequence at a time,
without cache: what the engine computes must agree with it. Needs python3-torch and python3-numpy; the
tests don't, they read the committed files.

  make_tiny_model.py make tests/golden/tiny_llama [NAME]   write the models (or one) and their expectations
  make_tiny_model.py expect MODEL PROMPTS.jsonl OUT.jsonl  expectations of a model given by path
      each line of PROMPTS has "prompt_ids"; --tokens N greedy tokens (96)

A line of an expectation: prompt_ids, first_logits (after the prompt), greedy_ids, smallest_margin (of the
two best logits over all greedy steps).
"""
import argparse
import json
import math
import pathlib
import struct

import numpy as np
import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

BASE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "bf16_sharded": dict(
        dtype="BF16", shards=3, seed=1, head_names="both",
        config=dict(vocab_size=160, hidden_size=48, intermediate_size=88, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
                    rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=False)),
    "f32_interleaved": dict(
        dtype="F32", shards=1, seed=2, head_names="embedding",
        config=dict(vocab_size=97, hidden_size=36, intermediate_size=50, num_hidden_layers=2,
                    num_attention_heads=6, num_key_value_heads=1, head_dim=8,
                    max_position_embeddings=384, rms_norm_eps=1e-5, rope_theta=500.0,
                    rope_interleaved=True, tie_word_embeddings=True)),
    "f16_llama3": dict(
        dtype="F16", shards=1, seed=3, head_names="head",
        config=dict(vocab_size=131, hidden_size=40, intermediate_size=72, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512,
                    rms_norm_eps=1e-6, rope_theta=5000.0, tie_word_embeddings=True,
                    eos_token_id=[2, 7],
                    rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                                      high_freq_factor=4.0,
                                      original_max_position_embeddings=64))),
    # A window over the borders of blocks and of attention groups, far shorter than the sequences.
    "mistral_window": dict(
        dtype="BF16", shards=2, seed=4, head_names="both", architecture=("MistralForCausalLM", "mistral"),
        config=dict(vocab_size=120, hidden_size=32, intermediate_size=56, num_hidden_layers=3,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=12,
                    max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0,
                    sliding_window=37, tie_word_embeddings=False)),
    # Biases; the window from layer 1 on.
    "qwen2_bias": dict(
        dtype="F32", shards=1, seed=5, head_names="both", architecture=("Qwen2ForCausalLM", "qwen2"),
        config=dict(vocab_size=110, hidden_size=36, intermediate_size=60, num_hidden_layers=2,
                    num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=512,
                    rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=True, sliding_window=70,
                    max_window_layers=1, tie_word_embeddings=False)),
    "qwen3_norm": dict(
        dtype="F16", shards=1, seed=16, head_names="both", architecture=("Qwen3ForCausalLM", "qwen3"),
        config=dict(vocab_size=125, hidden_size=40, intermediate_size=64, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                    max_position_embeddings=512, rms_norm_eps=1e-6, rope_theta=1000000.0,
                    use_sliding_window=False, sliding_window=None, max_window_layers=2,
                    tie_word_embeddings=False)),
}


def config_of(spec):
    config = dict(BASE, **spec["config"])
    if "architecture" in spec:
        name, config["model_type"] = spec["architecture"]
        config["architectures"] = [name]
        del config["mlp_bias"]
    return config


def head_dim_of(c):
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def make_tensors(spec):
    c = config_of(spec)
    generator = torch.Generator().manual_seed(spec["seed"])

    def normal(rows, cols, gain=1.0):
        return torch.randn(rows, cols, generator=generator, dtype=torch.float64) * gain / math.sqrt(cols)

    def norm_weight(n):
        return 1 + 0.2 * torch.randn(n, generator=generator, dtype=torch.float64)

    hidden, inner, dim = c["hidden_size"], c["intermediate_size"], head_dim_of(c)
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    tensors = {}
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        tensors[p + "input_layernorm.weight"] = norm_weight(hidden)
        tensors[p + "self_attn.q_proj.weight"] = normal(q, hidden, 2.0)
        tensors[p + "self_attn.k_proj.weight"] = normal(kv, hidden, 2.0)
        tensors[p + "self_attn.v_proj.weight"] = normal(kv, hidden)
        if c["model_type"] == "qwen2":
            for name, rows in (("q", q), ("k", kv), ("v", kv)):
                tensors[p + f"self_attn.{name}_proj.bias"] = normal(1, rows, 0.5 * math.sqrt(rows))[0]
        if c["model_type"] == "qwen3":
            tensors[p + "self_attn.q_norm.weight"] = norm_weight(dim)
            tensors[p + "self_attn.k_norm.weight"] = norm_weight(dim)
        tensors[p + "self_attn.o_proj.weight"] = normal(hidden, q, 1.5)
        tensors[p + "post_attention_layernorm.weight"] = norm_weight(hidden)
        tensors[p + "mlp.gate_proj.weight"] = normal(inner, hidden, 1.5)
        tensors[p + "mlp.up_proj.weight"] = normal(inner, hidden, 1.5)
        tensors[p + "mlp.down_proj.weight"] = normal(hidden, inner, 1.5)
    tensors["model.norm.weight"] = norm_weight(hidden)
    vocab = c["vocab_size"]
    if spec["head_names"] in ("both", "embedding"):
        tensors["model.embed_tokens.weight"] = normal(vocab, hidden, 4.0)
    if spec["head_names"] in ("both", "head"):
        tensors["lm_head.weight"] = normal(vocab, hidden, 4.0)
    return {name: t.to(DTYPES[spec["dtype"]]) for name, t in tensors.items()}


def tensor_bytes(tensor):
    flat = tensor.contiguous()
    return (flat if flat.dtype == torch.float32 else flat.view(torch.int16)).numpy().tobytes()


def write_safetensors(path, tensors, dtype):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = tensor_bytes(tensor)
        header[name] = {"dtype": dtype, "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_model(folder, spec):
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(spec)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors = make_tensors(spec)
    if spec["shards"] == 1:
        write_safetensors(folder / "model.safetensors", tensors, spec["dtype"])
        return
    names, weight_map = list(tensors), {}
    for i in range(spec["shards"]):
        file = f"model-{i + 1:05d}-of-{spec['shards']:05d}.safetensors"
        part = names[i::spec["shards"]]
        write_safetensors(folder / file, {n: tensors[n] for n in part}, spec["dtype"])
        weight_map.update({n: file for n in part})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n")


def read_safetensors(path):
    raw = path.read_bytes()
    length = struct.unpack_from("<Q", raw)[0]
    tensors = {}
    for name, info in json.loads(raw[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in info["data_offsets"])
        kind = np.float32 if info["dtype"] == "F32" else np.int16
        flat = torch.from_numpy(np.frombuffer(raw[begin:end], dtype=kind).copy())
        if info["dtype"] != "F32":
            flat = flat.view(DTYPES[info["dtype"]])
        tensors[name] = flat.reshape(info["shape"]).to(torch.float64)
    return tensors


def rope_frequencies(c):
    dim = head_dim_of(c)
    frequencies = c.get("rope_theta", 10000.0) ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    scaling = c.get("rope_scaling")
    if not scaling:
        return frequencies
    assert scaling["rope_type"] == "llama3", scaling
    out = []
    for f in frequencies.tolist():
        wavelength = 2 * math.pi / f
        low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
        high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
        if wavelength < high:
            out.append(f)
        elif wavelength > low:
            out.append(f / scaling["factor"])
        else:
            smooth = ((scaling["original_max_position_embeddings"] / wavelength
                       - scaling["low_freq_factor"])
                      / (scaling["high_freq_factor"] - scaling["low_freq_factor"]))
            out.append((1 - smooth) * f / scaling["factor"] + smooth * f)
    return torch.tensor(out, dtype=torch.float64)


def window_of(c, layer):
    """Positions that one sees in a layer, itself included; nothing: all."""
    window = c.get("sliding_window")
    if c["model_type"] == "mistral":
        return window
    return window if c.get("use_sliding_window") and layer >= c.get("max_window_layers", 0) else None


class Llama:
    """The model as the papers have it: whole sequence, full attention matrix, float64."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.c = json.loads((folder / "config.json").read_text())
        self.t = {}
        for path in sorted(folder.glob("*.safetensors")):
            self.t.update(read_safetensors(path))
        head, embedding = self.t.get("lm_head.weight"), self.t.get("model.embed_tokens.weight")
        if self.c.get("tie_word_embeddings"):
            head = embedding if embedding is not None else head
            embedding = head
        self.head, self.embedding = head, embedding
        self.frequencies = rope_frequencies(self.c)

    def norm(self, x, name):
        mean = (x * x).mean(-1, keepdim=True)
        return x / torch.sqrt(mean + self.c["rms_norm_eps"]) * self.t[name]

    def project(self, h, name):
        y = h @ self.t[name + ".weight"].T
        return y + self.t[name + ".bias"] if self.c["model_type"] == "qwen2" else y

    def rope(self, x):  # [tokens, heads, dim]
        angles = torch.arange(x.shape[0], dtype=torch.float64)[:, None] * self.frequencies
        cosine, sine = torch.cos(angles)[:, None], torch.sin(angles)[:, None]
        if self.c.get("rope_interleaved"):
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(-2)
        a, b = x.chunk(2, -1)
        return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)

    def logits(self, ids):
        c, t = self.c, self.t
        n, heads, kv_heads, dim = (len(ids), c["num_attention_heads"], c["num_key_value_heads"],
                                   head_dim_of(c))
        x = self.embedding[torch.tensor(ids)]
        causal = torch.full((n, n), -math.inf, dtype=torch.float64).triu(1)
        distance = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        for layer in range(c["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            h = self.norm(x, p + "input_layernorm.weight")
            window = window_of(c, layer)
            mask = causal if window is None else causal.masked_fill(distance >= window, -math.inf)
            q = self.project(h, p + "self_attn.q_proj").view(n, heads, dim)
            k = self.project(h, p + "self_attn.k_proj").view(n, kv_heads, dim)
            v = self.project(h, p + "self_attn.v_proj").view(n, kv_heads, dim)
            if c["model_type"] == "qwen3":
                q, k = self.norm(q, p + "self_attn.q_norm.weight"), self.norm(k, p + "self_attn.k_norm.weight")
            q, k = self.rope(q), self.rope(k)
            k, v = (u.repeat_interleave(heads // kv_heads, 1) for u in (k, v))
            scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(dim) + mask
            h = torch.einsum("hqk,khd->qhd", torch.softmax(scores, -1), v).reshape(n, heads * dim)
            x = x + h @ t[p + "self_attn.o_proj.weight"].T
            h = self.norm(x, p + "post_attention_layernorm.weight")
            gate = torch.nn.functional.silu(h @ t[p + "mlp.gate_proj.weight"].T)
            x = x + (gate * (h @ t[p + "mlp.up_proj.weight"].T)) @ t[p + "mlp.down_proj.weight"].T
        return self.norm(x[-1], "model.norm.weight") @ self.head.T


def expectation(model, prompt, num_tokens):
    ids, greedy, margin, first = list(prompt), [], math.inf, None
    for _ in range(num_tokens):
        logits = model.logits(ids)
        if first is None:
            first = [round(v, 6) for v in logits.tolist()]
        best = torch.topk(logits, 2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        greedy.append(int(best.indices[0]))
        ids.append(greedy[-1])
    return {"prompt_ids": list(prompt), "smallest_margin": round(margin, 7), "greedy_ids": greedy,
            "first_logits": first}


def write_expectations(model, prompts, num_tokens, path):
    with open(path, "w", encoding="utf-8") as out:
        for prompt in prompts:
            out.write(json.dumps(expectation(model, prompt, num_tokens)) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("folder", type=pathlib.Path)
    make.add_argument("name", nargs="?", choices=MODELS)
    expect = commands.add_parser("expect")
    expect.add_argument("model", type=pathlib.Path)
    expect.add_argument("prompts", type=pathlib.Path)
    expect.add_argument("out", type=pathlib.Path)
    expect.add_argument("--tokens", type=int, default=96)
    args = parser.parse_args()
    if args.command == "expect":
        lines = args.prompts.read_text().splitlines()
        write_expectations(Llama(args.model), [json.loads(line)["prompt_ids"] for line in lines],
                           args.tokens, args.out)
        return
    for name, spec in MODELS.items():
        if args.name not in (None, name):
            continue
        write_model(args.folder / name, spec)
        vocab = spec["config"]["vocab_size"]
        prompts = [[1], [(7 * i + 3) % vocab for i in range(9)], [(i * i + 5) % vocab for i in range(70)]]
        write_expectations(Llama(args.folder / name), prompts, 200,
                           args.folder / name / "expected.jsonl")


if __name__ == "__main__":
    main()
