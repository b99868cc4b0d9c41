"""Generates text with Brook: many prompts at once, with a cache of keys and values, greedy or sampled."""

import argparse
import pathlib

import torch

import corpus
from batches import MASKED, Encoder
from model import Brook, Shape

ROUND_BLOCK = 32


def load(checkpoint, weights="average"):
    """The model of a checkpoint, with its averaged or its raw weights, rounded to bfloat16 as they are shipped."""
    saved = torch.load(checkpoint)
    model = Brook(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    with torch.no_grad():
        if weights == "average":
            for p, average in zip(model.parameters(), saved["average"]):
                p.copy_(average)
        for p in model.parameters():
            p.copy_(p.bfloat16().float())
            p.requires_grad_(False)
    return model, {key: saved[key] for key in ("step", "tokens", "seconds", "corpus", "seed")}


def find_tokenizer(checkpoint, given=None):
    """The encoder that was given, or the one beside the checkpoint."""
    return Encoder(given or pathlib.Path(checkpoint).parent / "tokenizer" / "tokenizer.model")


def round_blocks(x):
    """Rounds blocks of 32 along the last dimension to 8 bits with one scale per block, as the quantized engine stores them."""
    blocks = x.reshape(*x.shape[:-1], -1, ROUND_BLOCK)
    scale = blocks.abs().amax(-1, keepdim=True).clamp_(min=1e-20) / 127
    return ((blocks / scale).round() * scale).reshape(x.shape)


def simulate_int8(model):
    """Rounds every matrix now and every activation that meets one from now on."""
    for name, p in model.named_parameters():
        if p.ndim == 2:
            p.copy_(round_blocks(p))
    model.multiply = lambda x, weight: torch.nn.functional.linear(round_blocks(x), weight)


@torch.no_grad()
def generate(model, prompts, stop_ids, max_tokens, temperature=0.0, seed=0, batch=32):
    """For each prompt (a list of ids) the (new ids without the stop id, whether it ended by itself)."""
    results = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        for index, result in zip(chosen, _batch(model, [prompts[i] for i in chosen], stop_ids, max_tokens, temperature, seed + at)):
            results[index] = result
    return results


def _batch(model, prompts, stop_ids, max_tokens, temperature, seed):
    random = torch.Generator().manual_seed(seed)
    count, width = len(prompts), max(len(p) for p in prompts)
    ids = torch.zeros(count, width, dtype=torch.long)
    pads = torch.tensor([width - len(p) for p in prompts])
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    index = torch.arange(width)
    positions = (index[None] - pads[:, None]).clamp_(min=0)
    sees = (index[None, :, None] >= index[None, None, :]) & (index[None, None, :] >= pads[:, None, None])
    bias = torch.zeros(sees.shape).masked_fill_(~sees, MASKED).unsqueeze(1)
    cache = []
    hidden = model.hidden(ids, positions, bias, cache=cache)[:, -1:]
    key_bias = torch.zeros(count, 1, 1, width).masked_fill_((index[None] < pads[:, None]).view(count, 1, 1, width), MASKED)
    produced, ended, position = [[] for _ in prompts], [False] * count, positions[:, -1:]
    room = model.shape.context
    for _ in range(max_tokens):
        logits = model.logits(hidden[:, 0])
        if temperature > 0:
            token = torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=random)
        else:
            token = logits.argmax(-1, keepdim=True)
        for row in range(count):
            if not ended[row]:
                if int(token[row]) in stop_ids:
                    ended[row] = True
                else:
                    produced[row].append(int(token[row]))
        if all(ended) or int(position.max()) + 1 >= room:
            break
        position = position + 1
        key_bias = torch.cat((key_bias, torch.zeros(count, 1, 1, 1)), 3)
        hidden = model.hidden(token, position, key_bias, cache=cache)
    return list(zip(produced, ended))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--tokenizer", help="tokenizer.model; by default beside the checkpoint")
    parser.add_argument("--system", help="system prompt of the chat")
    parser.add_argument("--plain", action="store_true", help="continue each prompt as plain text instead of answering it")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("prompts", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, _ = load(args.checkpoint)
    encoder = find_tokenizer(args.checkpoint, args.tokenizer)
    system = [("system", args.system)] if args.system else []
    as_chat = lambda text: corpus.chat_pieces(system + [("user", text)]) + [(corpus.START, False), ("assistant\n", False)]
    prompts = [encoder.encode([(corpus.BOS, False), (p, False)] if args.plain else as_chat(p))[0] for p in args.prompts]
    stops = {encoder.control[corpus.END], encoder.control[corpus.EOS]}
    for prompt, (ids, ended) in zip(args.prompts, generate(model, prompts, stops, args.max_tokens, args.temperature, args.seed)):
        print(f"{prompt}\n  -> {encoder.decode(ids).strip()}{'' if ended else ' [cut]'}")


if __name__ == "__main__":
    main()
