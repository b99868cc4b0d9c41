"""Writes a checkpoint as a model folder in Hugging Face layout, with the evaluated figures in its model card."""

import argparse
import json
import pathlib
import shutil
import struct

import torch

from evaluate import TARGETS
from generate import find_tokenizer, load

FIGURE_NAMES = {
    "sluice_right": "Questions about Sluice, held-out phrasing: right fact, greedy", "sluice_right_new_wording": "Questions about Sluice, new wording: right fact, greedy",
    "chat_ends": "Held-out chats: answer ends by itself", "chat_short": "Held-out chats: answer within 120 tokens", "chat_right_unknown": "Unknown questions: graceful answer",
    "chat_right_chat": "Small talk: expected answer", "chat_right_fact": "Simple facts: right", "chat_right_sum": "Sums up to 20: right", "chat_right_memory": "Name or favourite remembered",
    "chat_right_system": "System prompt obeyed (name, tone, brevity)", "chat_right_json": "JSON object as asked", "chat_right_tools": "Tool call exactly as expected", "chat_right_echo": "Words repeated as asked",
    "story_ends": "Stories at temperature 0.8: end by themselves", "story_names": "Stories: names, animals and pronouns stay the same", "story_no_repeat": "Stories: no sentence repeated", "story_distinct3": "Stories: distinct 3-grams over all",
}


def hugging_face_tensors(model):
    """(name, tensor) pairs in the names of the Llama layout; the output matrix is tied to the embedding and not stored."""
    yield "model.embed_tokens.weight", model.embed
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}."
        yield prefix + "input_layernorm.weight", layer.attn_norm
        yield prefix + "post_attention_layernorm.weight", layer.mlp_norm
        for name in ("q", "k", "v", "o"):
            yield f"{prefix}self_attn.{name}_proj.weight", getattr(layer, name)
        for name in ("gate", "up", "down"):
            yield f"{prefix}mlp.{name}_proj.weight", getattr(layer, name)
    yield "model.norm.weight", model.norm


def write_safetensors(path, tensors):
    """The safetensors format: length of the header (u64), JSON header padded with spaces to 8 bytes, then the data."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors:
        blob = tensor.detach().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def figures_table(figures, rounded):
    lines = ["| figure | value | int8 | target |", "|---|---|---|---|"]
    for name, title in FIGURE_NAMES.items():
        target = TARGETS.get(name)
        shown = [f"{v:.2f}" if name == "story_distinct3" else f"{100 * v:.1f} %" for v in (figures[name], rounded[name])]
        wanted = "" if target is None else f"{target:.2f}" if name == "story_distinct3" else f"{100 * target:.0f} %"
        lines.append(f"| {title} | {shown[0]} | {shown[1]} | {wanted} |")
    lines.append("")
    lines.append(f"{figures['sluice_questions']} questions about Sluice, {figures['chats']} chats, {figures['stories']} stories of {figures['story_words']} words on average.")
    return "\n".join(lines)


def model_card(template, model, about, evaluation):
    stories = "\n\n".join(f"{i}. *{s['opening']}* {s['rest']}" for i, s in enumerate(evaluation["texts"]["story"][:10], 1))
    values = {"parameters": f"{model.parameters_count():,}", "tokens": f"{about['tokens'] / 1e6:.1f}", "hours": f"{about['seconds'] / 3600:.1f}", "corpus": about["corpus"], "seed": about["seed"],
              "figures": figures_table(evaluation["figures"], evaluation["int8"]), "stories": stories, **model.shape.as_dict()}
    text = template.split("-->\n", 1)[1]
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", str(value))
    return "<!-- Model card of Brook, written by scripts/builtin_model/export.py. -->\n" + text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--tokenizer", help="tokenizer.model; by default beside the checkpoint")
    parser.add_argument("--evaluation", required=True, help="JSON written by evaluate.py --out for this checkpoint")
    parser.add_argument("--out", required=True, help="folder of the model, such as models/brook")
    parser.add_argument("--allow-missed", action="store_true", help="export although a target is missed")
    args = parser.parse_args()
    evaluation = json.loads(pathlib.Path(args.evaluation).read_text(encoding="utf-8"))
    model, about = load(args.checkpoint)
    if evaluation["about"] != json.loads(json.dumps(about)):
        raise SystemExit("the evaluation belongs to another checkpoint")
    if not evaluation["int8"]:
        raise SystemExit("the evaluation lacks the int8 figures")
    if not evaluation["reached"] and not args.allow_missed:
        raise SystemExit("the evaluation misses a target; --allow-missed exports all the same")
    encoder = find_tokenizer(args.checkpoint, args.tokenizer)
    source = args.tokenizer or pathlib.Path(args.checkpoint).parent / "tokenizer" / "tokenizer.model"
    folder, here, shape = pathlib.Path(args.out), pathlib.Path(__file__).parent, model.shape
    folder.mkdir(parents=True, exist_ok=True)
    start, end, bos, eos = (encoder.control[t] for t in ("<|im_start|>", "<|im_end|>", "<s>", "</s>"))
    template = (here / "chat_template.jinja").read_text(encoding="utf-8")

    write_safetensors(folder / "model.safetensors", hugging_face_tensors(model))
    shutil.copyfile(source, folder / "tokenizer.model")
    shutil.copyfile(here / "chat_template.jinja", folder / "chat_template.jinja")
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
        "vocab_size": shape.vocab_size, "hidden_size": shape.dim, "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context, "rope_theta": shape.rope_theta, "rope_scaling": None, "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "bos_token_id": bos, "eos_token_id": [end, eos], "use_cache": True})
    special = lambda text: {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": False, "add_prefix_space": False,
        "bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "pad_token": None, "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context, "chat_template": template,
        "added_tokens_decoder": {str(i): special(t) for i, t in sorted(((0, "<unk>"), (bos, "<s>"), (eos, "</s>"), (start, "<|im_start|>"), (end, "<|im_end|>")))}})
    write_json(folder / "generation_config.json", {"bos_token_id": bos, "eos_token_id": [end, eos], "do_sample": True, "temperature": 0.3, "top_p": 0.95})
    card = model_card((here / "model_card.md").read_text(encoding="utf-8"), model, about, evaluation)
    (folder / "README.md").write_text(card, encoding="utf-8")
    size = sum(p.stat().st_size for p in folder.iterdir())
    print(f"wrote {folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
