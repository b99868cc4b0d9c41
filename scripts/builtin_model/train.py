"""Trains Brook on one thread in the background: resumable to the bit, pausable, with a checkpoint every ten minutes."""

import argparse
import ctypes
import json
import os
import pathlib
import signal
import time

import torch
import torch.nn.functional as F

import corpus
from batches import Encoder, Packer
from model import Brook, Shape
from optimizer import Optimizer

WARMUP_STEPS = 50
AVERAGE_KEEP = 0.998  # of the running average of the weights, per step; the average is what gets evaluated and exported


def rate_factor(step, tokens, tokens_total, decay_share):
    """Warm up, stay, and fall to zero in a line over the last `decay_share` of the tokens."""
    start = tokens_total * (1 - decay_share)
    fall = 1.0 if tokens <= start else max(0.0, (tokens_total - tokens) / (tokens_total - start))
    return min(1.0, (step + 1) / WARMUP_STEPS) * fall


def keep_memory():
    """Tells glibc to keep large blocks instead of returning them to the system: page faults cost a fifth of the time."""
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


class Run:
    """All that a training run consists of; save and load cover every part of it."""

    def __init__(self, args):
        torch.manual_seed(args.seed)
        self.args = args
        self.folder = pathlib.Path(args.dir)
        self.shape = Shape(vocab_size=args.vocab_size, dim=args.dim, layers=args.layers, heads=args.heads, kv_heads=args.kv_heads, ffn=args.ffn)
        self.encoder = Encoder(args.tokenizer or self.folder / "tokenizer" / "tokenizer.model")
        self.model = Brook(self.shape, args.seed)
        self.optimizer = Optimizer(self.model, args.matrix_rate, args.other_rate)
        self.packer = Packer(self.encoder, args.seed, args.batch_tokens)
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self.step = self.tokens = 0
        self.seconds = 0.0

    def save(self, name="checkpoint.pt"):
        target = self.folder / name
        scratch = self.folder / (name + ".new")
        torch.save({"shape": self.shape.as_dict(), "model": self.model.state_dict(), "optimizer": self.optimizer.state(),
                    "packer": self.packer.state(), "average": self.average, "step": self.step, "tokens": self.tokens,
                    "seconds": self.seconds, "corpus": corpus.digest(), "seed": self.args.seed,
                    "random": torch.get_rng_state()}, scratch)
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, target)

    def load(self, path):
        saved = torch.load(path)
        if saved["shape"] != self.shape.as_dict():
            raise SystemExit(f"{path} has another shape: {saved['shape']}")
        if saved["corpus"] != corpus.digest():
            print("the corpus has changed since this checkpoint; going on with the new one", flush=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load(saved["optimizer"])
        self.packer.load(saved["packer"])
        self.average = saved["average"]
        self.step, self.tokens, self.seconds = saved["step"], saved["tokens"], saved["seconds"]
        torch.set_rng_state(saved["random"])

    def train_step(self):
        """One batch; returns its mean loss over the learned tokens."""
        ids, targets, positions, bias, count = self.packer.batch()
        dtype = torch.bfloat16 if self.args.precision == "bf16" else torch.float32
        hidden = self.model.hidden(ids, positions, bias, dtype)
        wanted = (targets >= 0).flatten().nonzero().squeeze(1)
        loss = F.cross_entropy(self.model.logits(hidden.flatten(0, 1)[wanted]), targets.flatten()[wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(rate_factor(self.step, self.tokens, self.args.tokens, self.args.decay_share))
        with torch.no_grad():
            keep = min(AVERAGE_KEEP, (self.step + 1) / (self.step + 20))
            torch._foreach_mul_(self.average, keep)
            torch._foreach_add_(self.average, list(self.model.parameters()), alpha=1 - keep)
        self.step += 1
        self.tokens += count
        return float(loss)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--dir", required=True, help="folder of the run: checkpoint.pt, log.jsonl, PAUSE; outside the repository")
    parser.add_argument("--tokenizer", help="tokenizer.model; by default DIR/tokenizer/tokenizer.model")
    parser.add_argument("--tokens", type=float, default=60e6, help="tokens of the whole run")
    parser.add_argument("--decay-share", type=float, default=0.5, help="share of the tokens over which the rates fall to zero")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--save-seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16", help="of the matrix products; weights stay float32")
    parser.add_argument("--from", dest="source", help="start from this checkpoint instead of DIR/checkpoint.pt")
    for name, default in (("dim", 256), ("layers", 6), ("heads", 8), ("kv-heads", 2), ("ffn", 512), ("vocab-size", 2048)):
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--matrix-rate", type=float, default=0.01)
    parser.add_argument("--other-rate", type=float, default=0.002)
    parser.add_argument("--stop-after-steps", type=int, default=0, help="save and end after this many further steps")
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    run = Run(args)
    source = pathlib.Path(args.source) if args.source else run.folder / "checkpoint.pt"
    if source.exists():
        run.load(source)
    elif args.source:
        raise SystemExit(f"{source} does not exist")
    print(f"parameters={run.model.parameters_count()} step={run.step} tokens={run.tokens}", flush=True)
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))

    log = open(run.folder / "log.jsonl", "a", encoding="utf-8")
    saved_at = logged_at = time.monotonic()
    losses, paused, first_step, logged_tokens = [], 0.0, run.step, run.tokens
    stable_tokens = args.tokens * (1 - args.decay_share)
    while run.tokens < args.tokens and not stopping and not (args.stop_after_steps and run.step - first_step >= args.stop_after_steps):
        if (run.folder / "PAUSE").exists():
            run.save()
            saved_at = time.monotonic()
        while (run.folder / "PAUSE").exists() and not stopping:
            time.sleep(0.5)
            paused += 0.5
        began = time.process_time()
        before = run.tokens
        losses.append(run.train_step())
        run.seconds += time.process_time() - began
        if before <= stable_tokens < run.tokens:
            run.save("before_decay.pt")
        if run.step % 20 == 0:
            now = time.monotonic()
            record = {"step": run.step, "tokens": run.tokens, "loss": round(sum(losses) / len(losses), 4),
                      "tokens_per_s": round((run.tokens - logged_tokens) / max(1e-9, now - logged_at - paused)),
                      "rate": round(rate_factor(run.step, run.tokens, args.tokens, args.decay_share), 4), "cpu_s": round(run.seconds)}
            log.write(json.dumps(record) + "\n")
            log.flush()
            losses, logged_at, logged_tokens, paused = [], now, run.tokens, 0.0
        if time.monotonic() - saved_at >= args.save_seconds:
            run.save()
            saved_at = time.monotonic()
    run.save()
    print(f"saved step={run.step} tokens={run.tokens}", flush=True)


if __name__ == "__main__":
    main()
