#!/usr/bin/env python3
"""The engine against llama.cpp on the same GGUF files, interleaved in one run.

  python3 tests/bench/run_engine.py --llama DIR --model FILE.gguf[,FILE.gguf...] [--tiny FILE.gguf]
          [--text FILE] [--chunks 200] [--build build/release] [--threads 2] [--repeats 5] [--quick] [--json FILE]
          [--only decode,prefill,streams,http,busy,load,perplexity,greedy,tiny]

decode      one stream of 64 tokens behind a prompt of 16: tokens per second from the first on
prefill     a prompt of 512 tokens, from the request to the first token: tokens per second
streams     8, 16 and 32 streams of 32 tokens behind prompts of 16: tokens per second from the first on
http        8 clients, prompts of 111 tokens, 64 out, against llama-server -np 8: tokens per second,
            TTFT (p50), inter-token latency (p99)
busy        decode beside a thread that counts in a loop: the share of its undisturbed rate that each keeps
load        from the start of the process until it is ready, the file in the page cache, both as they start
            by default, and llama-server with --no-warmup: seconds. A hypervisor may have taken free memory
            back and give it again at seconds per GB: so much as is needed is touched before each start
perplexity  of --text in chunks of 512, once: sluice perplexity against llama-perplexity
greedy      20 prompts cut from --text, 200 tokens each at temperature 0, end tokens forbidden: how many
            agree to their end
tiny        64 clients, 64 tokens each, streamed, on --tiny: server CPU per request

DIR holds llama-bench, llama-batched-bench, llama-server and llama-perplexity. Which parts a file goes
through depends on the type of its matrices (PARTS below); --only chooses among all of them. Sluice is
measured through HTTP by `sluice bench`, so its own server counts against it; llama.cpp's figures of
decode, prefill and streams are what its own tools say. Both use the same threads, one runs after the
other, and before each pair the machine's limits are measured, so that shares of the read bandwidth
(of the matrices' bytes per decoded token) and of the peak (of two operations per weight of all layers
but the last, of which most is left out, and prompt token) are of the same minute. Figures: median of the repeats with its range; a ratio is the
median over the pairs. The exit code is 1 when a run failed, never because of a figure.
"""
import argparse
import json
import mmap
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import llama_cpp
import yardsticks
from yardsticks import Figures, Sluice

PARTS = {"Q8_0": ("decode", "prefill", "streams", "http", "load"),
         "Q4_0": ("decode", "prefill", "streams", "busy"),
         "F16": ("decode", "prefill"),
         "Q4_K": ("decode", "prefill"), "Q5_K": ("decode", "prefill"), "Q6_K": ("decode", "prefill")}
ALL_PARTS = ("decode", "prefill", "streams", "http", "busy", "load", "perplexity", "greedy", "tiny")
# Of ratios to llama.cpp (at least; load, ttft, cpu: at most), and of shares of a limit.
GOALS = {("decode", "Q8_0"): 1.3, ("decode", "Q4_0"): 1.45, ("decode", "F16"): 1.15,
         ("prefill", "Q8_0"): 5, ("prefill", "Q4_0"): 2.8, ("prefill", "F16"): 1.6,
         ("8 streams", "Q8_0"): 3, ("16 streams", "Q8_0"): 5, ("32 streams", "Q8_0"): 7,
         ("8 streams", "Q4_0"): 2, ("16 streams", "Q4_0"): 2.5, ("32 streams", "Q4_0"): 3,
         ("http tokens/s", "Q8_0"): 4.5}
LEAST_GOALS = {("http ttft p50", "Q8_0"): 0.15, ("load", "Q8_0"): 1.0, ("tiny CPU", None): 0.05}
SHARE_GOALS = {("decode", "Q8_0"): 0.85, ("decode", "Q4_0"): 0.85, ("decode", "F16"): 0.85,
               ("prefill", "Q8_0"): 0.5, ("prefill", "Q4_0"): 0.5}
BUSY_GOAL = 0.45
PERPLEXITY_GOAL = 0.005


def id_prompt(length, number):
    """Ids of common pieces, different from the first on."""
    return [300 + (number * 211 + i * 7919) % 197 for i in range(length)]


def touch_memory(num_bytes):
    with mmap.mmap(-1, num_bytes) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, num_bytes, 4096):
            memory[at] = 1


class Model:
    """A GGUF file, as `sluice inspect` describes it."""

    def __init__(self, path, bin_dir):
        self.path = pathlib.Path(path).resolve()
        run = subprocess.run([bin_dir / "sluice", "inspect", self.path], capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(run.stderr)
        facts = dict(re.fullmatch(r"(\S+) +(.*)", line).groups() for line in run.stdout.splitlines())
        self.type = re.match(r"\w+", facts["matrices"]).group(0)
        self.context = int(facts["context_tokens"])
        self.end_ids = [int(id) for id in facts.get("end_ids", "").split() if id.isdigit()]
        embedding = int(facts["vocabulary"]) * int(facts["hidden_size"])
        kind = re.fullmatch(r"(tied|separate).*?(F32|F16|BF16)?", facts["embeddings"])
        is_tied = kind.group(1) == "tied"
        held = 0 if is_tied else embedding * (4 if kind.group(2) == "F32" else 2)
        self.bytes_per_token = int(facts["memory_bytes"]) - held  # decoding reads all but the embedding
        # A prompt's token meets the layers; the head, and what lies behind the last attention, only the last one.
        layers = int(facts["layers"])
        self.products_per_token = (int(facts["parameters"]) - embedding * (1 if is_tied else 2)) * (layers - 1) // layers


class Limits:
    def __init__(self, bin_dir, threads):
        run = subprocess.run([bin_dir / "kernel_bench", "--only", "probe", "--repeats", "3", "--threads", str(threads)],
                             capture_output=True, text=True, check=True)
        found = dict(re.findall(r"limit +(\S+) +([0-9.]+)", run.stdout))
        self.fma, self.read, self.int8 = (float(found[name]) * 1e9 for name in ("FMA", "read", "int8"))


class SluiceEngine:
    name = "sluice"

    def __init__(self, model, threads, context):
        self.model, begin = model, time.monotonic()
        self.server = Sluice(models=[{"name": "m", "kind": "llama", "path": str(model.path), "threads": threads,
                                      "prefix_cache": False, "context_tokens": context, "step_tokens_max": 512}])
        self.load_seconds = time.monotonic() - begin
        self.port, self.process = self.server.port, self.server.process

    def stop(self):
        self.server.stop()


class Load:
    """`sluice bench` on a server: prompts of ids, all streamed."""

    def __init__(self, bin_dir):
        self.bin = bin_dir

    def run(self, server, prompts, tokens, clients, extra=None):
        with tempfile.NamedTemporaryFile("w") as dataset:
            for prompt in prompts:
                dataset.write(json.dumps({"prompt": prompt}) + "\n")
            dataset.flush()
            members = json.dumps({"ignore_eos": True, "temperature": 0, **(extra or {})})
            run = subprocess.run(
                [self.bin / "sluice", "bench", "--url", f"http://127.0.0.1:{server.port}/v1", "--model", "m", "--quiet",
                 "--json", "-", "--warmup", "0", "--timeout", "3000", "--stream", "--dataset", dataset.name,
                 "-n", str(len(prompts)), "-c", str(clients), "--max-tokens", str(tokens), "--extra", members,
                 "--server-tree", str(server.process.pid)], capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(f"{server.name}: {run.stderr}{run.stdout}")
        report = json.loads(run.stdout)
        wanted = len(prompts) * tokens
        if report["window"]["completion_tokens"] != wanted:
            raise SystemExit(f"{server.name}: {report['window']['completion_tokens']} tokens, expected {wanted}")
        return report

    def decode(self, server, streams, prompt, tokens, counter):
        """Tokens per second of all streams together behind their first tokens. Each stream's gaps add up
        to its time; `counter` makes prompts differ between calls."""
        prompts = [id_prompt(prompt, counter * 64 + s) for s in range(streams)]
        latency = self.run(server, prompts, tokens, streams)["latency_us"]
        seconds = latency["itl"]["mean"] * latency["itl"]["count"] / 1e6 / streams
        # A model so quick that all tokens come in one read: from the request on.
        return streams * (tokens - 1) / (seconds or latency["e2e"]["mean"] / 1e6)


class Busy:
    """A thread of another process that counts, for as long as the `with` lasts."""

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Bench:
    def __init__(self, options, bin_dir):
        self.options, self.bin = options, bin_dir
        self.tools = llama_cpp.Tools(options.llama, options.threads)
        self.load_client = Load(bin_dir)
        self.report, self.rows = {}, []
        self.counter = 0

    def pairs(self, sluice, llama):
        """Both in turn, the limits before each pair: ours, theirs, limits."""
        ours, theirs, limits = [], [], []
        for _ in range(self.options.repeats):
            limits.append(Limits(self.bin, self.options.threads))
            self.counter += 1
            ours.append(sluice())
            theirs.append(llama())
        return ours, theirs, limits

    def note(self, name, model, ours, theirs, unit, digits=1, shares=None):
        """shares: (name of the limit, ours, theirs). Ratios below 1 are better where LEAST_GOALS has the row."""
        key = (name, model.type if model else None)
        ratio = Figures(o / t for o, t in zip(ours, theirs))
        row = {"sluice": Figures(ours).as_json(), "llama.cpp": Figures(theirs).as_json(), "ratio": ratio.as_json(),
               "unit": unit}
        verdicts = []
        if key in GOALS:
            verdicts.append(f">= {GOALS[key]:g}: {'met' if ratio.median >= GOALS[key] else 'MISSED'}")
        if key in LEAST_GOALS:
            verdicts.append(f"<= {LEAST_GOALS[key]:g}: {'met' if ratio.median <= LEAST_GOALS[key] else 'MISSED'}")
        shown = ""
        if shares:
            limit, our_share, their_share = shares[0], Figures(shares[1]), Figures(shares[2])
            row["share"] = {"of": limit, "sluice": our_share.as_json(), "llama.cpp": their_share.as_json()}
            shown = f"{100 * our_share.median:.0f} / {100 * their_share.median:.0f} % of {limit}"
            if key in SHARE_GOALS:
                verdicts.append(f">= {100 * SHARE_GOALS[key]:.0f} %: "
                                f"{'met' if our_share.median >= SHARE_GOALS[key] else 'MISSED'}")
        row["goals"] = verdicts
        label = f"{name} {model.type}" if model else name
        self.report[label] = row
        cells = [label, unit, Figures(ours).text(digits), Figures(theirs).text(digits), ratio.text(2), shown,
                 "; ".join(verdicts)]
        self.rows.append(cells)
        print("  " + "   ".join(cell for cell in cells if cell), flush=True)

    def of_bandwidth(self, model, rates, limits, tokens_per_read=1):
        return [rate / tokens_per_read * model.bytes_per_token / limit.read for rate, limit in zip(rates, limits)]

    def of_peak(self, model, rates, limits):
        return [rate * 2 * model.products_per_token / (limit.fma if model.type in ("F16", "F32", "BF16") else limit.int8)
                for rate, limit in zip(rates, limits)]

    def decode(self, model, engine):
        ours, theirs, limits = self.pairs(lambda: self.load_client.decode(engine, 1, 16, 64, self.counter),
                                          lambda: self.tools.bench(model.path, 0, 64))
        self.note("decode", model, ours, theirs, "tokens/s", shares=(
            "read bandwidth", self.of_bandwidth(model, ours, limits), self.of_bandwidth(model, theirs, limits)))

    def prefill(self, model, engine):
        def ours():
            report = self.load_client.run(engine, [id_prompt(512, self.counter)], 1, 1)
            return 512 / (report["latency_us"]["ttft"]["mean"] / 1e6)
        rates, theirs, limits = self.pairs(ours, lambda: self.tools.bench(model.path, 512, 0))
        self.note("prefill", model, rates, theirs, "tokens/s", shares=(
            "FMA peak" if model.type in ("F16", "F32", "BF16") else "int8 peak",
            self.of_peak(model, rates, limits), self.of_peak(model, theirs, limits)))

    def streams(self, model, engine):
        for streams in (8, 16, 32):
            ours, theirs, limits = self.pairs(
                lambda n=streams: self.load_client.decode(engine, n, 16, 32, self.counter),
                lambda n=streams: self.tools.batched(model.path, n, 16, 32))
            self.note(f"{streams} streams", model, ours, theirs, "tokens/s", shares=(
                "read bandwidth", self.of_bandwidth(model, ours, limits, streams),
                self.of_bandwidth(model, theirs, limits, streams)))

    def http(self, model, engine):
        rival = llama_cpp.Server(self.tools, model.path, 8, 256)
        clients = requests = 8  # llama-server closes connections between requests

        def run(server, extra):
            prompts = [id_prompt(111, self.counter * 64 + i) for i in range(requests)]
            report = self.load_client.run(server, prompts, 64, clients, extra)
            latency = report["latency_us"]
            return report["tokens_per_second"], latency["ttft"]["p50"] / 1e3, latency["itl"]["p99"] / 1e3
        try:
            ours, theirs, _ = self.pairs(lambda: run(engine, {}), lambda: run(rival, {"cache_prompt": False}))
        finally:
            rival.stop()
        for i, (name, unit) in enumerate((("http tokens/s", "tokens/s"), ("http ttft p50", "ms"),
                                          ("http itl p99", "ms"))):
            self.note(name, model, [o[i] for o in ours], [t[i] for t in theirs], unit)

    def busy(self, model, engine):
        def kept(run):
            undisturbed = run()
            with Busy():
                return run() / undisturbed
        ours, theirs, _ = self.pairs(
            lambda: kept(lambda: self.load_client.decode(engine, 1, 16, 64, self.counter)),
            lambda: kept(lambda: self.tools.bench(model.path, 0, 64)))
        self.note("kept beside a busy thread", model, ours, theirs, "of its rate", 2)
        met = Figures(ours).median >= BUSY_GOAL
        self.report[f"kept beside a busy thread {model.type}"]["goals"] = [f">= {BUSY_GOAL}: {met}"]
        print(f"    goal >= {BUSY_GOAL}: {'met' if met else 'MISSED'}")

    def load(self, model):
        def seconds(start):
            touch_memory(2 * model.path.stat().st_size)
            started = start()
            started.stop()
            return started.load_seconds

        def ours():
            return seconds(lambda: SluiceEngine(model, self.options.threads, 2048))

        def theirs(options):
            return seconds(lambda: llama_cpp.Server(self.tools, model.path, 1, 2048, options))
        with open(model.path, "rb") as file:  # into the page cache
            while file.read(1 << 24):
                pass
        self.note("load", model, *self.pairs(ours, lambda: theirs(()))[:2], "s", 2)
        self.note("load, no warm-up", model, *self.pairs(ours, lambda: theirs(("--no-warmup",)))[:2], "s", 2)

    def perplexity(self, model):
        text, chunks = self.options.text, self.options.chunks
        run = subprocess.run(
            [self.bin / "sluice", "perplexity", "--model", model.path, "--file", text, "--threads",
             str(self.options.threads), *(["--chunks", str(chunks)] if chunks else [])],
            capture_output=True, text=True, check=True)
        ours = float(re.search(r"(?m)^perplexity +(\S+)", run.stdout).group(1))
        theirs = self.tools.perplexity(model.path, text, 512, chunks)
        self.note("perplexity", model, [ours], [theirs], "", 4)
        off = abs(ours / theirs - 1)
        verdict = f"off by {100 * off:.3f} %, <= {100 * PERPLEXITY_GOAL:g} %: {'met' if off <= PERPLEXITY_GOAL else 'MISSED'}"
        self.report[f"perplexity {model.type}"]["goals"] = [verdict]
        print("    " + verdict)

    def greedy(self, model, engine):
        # K and V in F32, as Sluice keeps them by default: binary16 alone turns near ties.
        rival = llama_cpp.Server(self.tools, model.path, 1, min(model.context, 1024),
                                 ("--no-warmup", "--cache-type-k", "f32", "--cache-type-v", "f32", "-fa", "off"))
        words = pathlib.Path(self.options.text).read_text(encoding="utf-8").split()
        prompts, tokens = 20, 200
        equal = prefix = 0
        try:
            for i in range(prompts):
                begin = i * len(words) // prompts
                prompt = engine.server.server.post(
                    "/tokenize", {"model": "m", "prompt": " ".join(words[begin:begin + 12])}).json()["tokens"]
                ours = engine.server.server.post("/v1/completions", {
                    "model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "return_token_ids": True,
                    "logit_bias": {str(id): -100 for id in model.end_ids}}).json()["choices"][0]["token_ids"]
                theirs = yardsticks.post_json(rival.port, "/completion", {
                    "prompt": prompt, "n_predict": tokens, "temperature": 0, "return_tokens": True,
                    "logit_bias": [[id, False] for id in model.end_ids], "cache_prompt": False, "top_k": 1})["tokens"]
                if len(ours) != tokens or len(theirs) != tokens:
                    raise SystemExit(f"{len(ours)} and {len(theirs)} tokens, expected {tokens}")
                same = next((k for k, (a, b) in enumerate(zip(ours, theirs)) if a != b), tokens)
                equal += same == tokens
                prefix += same
        finally:
            rival.stop()
        self.report[f"greedy {model.type}"] = {"prompts": prompts, "equal": equal, "tokens": prompts * tokens,
                                               "tokens_equal": prefix}
        print(f"  greedy {model.type}   {equal} of {prompts} agree to their end; {prefix} of {prompts * tokens} tokens stand "
              "before a first difference", flush=True)

    def tiny(self, model):
        engine = SluiceEngine(model, self.options.threads, min(model.context, 512))
        rival = llama_cpp.Server(self.tools, model.path, 64, min(model.context, 256))

        def cpu(server, extra):
            prompts = [id_prompt(8, self.counter * 64 + i) for i in range(64)]
            report = self.load_client.run(server, [[1 + t % 200 for t in p] for p in prompts], 64, 64, extra)
            return 1e3 * report["server_cpu_seconds"] / 64
        try:
            for _ in range(1):  # threads, buffers and pages exist
                cpu(engine, {})
                cpu(rival, {"cache_prompt": False})
            ours, theirs, _ = self.pairs(lambda: cpu(engine, {}), lambda: cpu(rival, {"cache_prompt": False}))
        finally:
            rival.stop()
            engine.stop()
        self.note("tiny CPU", None, ours, theirs, "ms of server CPU a request", 3)

    def run(self, model, parts):
        print(f"{model.path.name}: {model.type}, {model.bytes_per_token / 1e6:.0f} MB a token", flush=True)
        served = [part for part in parts if part in ("decode", "prefill", "streams", "http", "busy", "greedy")]
        if served:
            engine = SluiceEngine(model, self.options.threads, min(model.context, 2048))
            try:
                self.load_client.decode(engine, 1, 16, 8, self.counter)
                for part in served:
                    getattr(self, part)(model, engine)
            finally:
                engine.stop()
        for part in parts:
            if part in ("load", "perplexity"):
                getattr(self, part)(model)

    def table(self):
        """What was measured, for a document."""
        if not self.rows:
            return
        print("\n| what | unit | Sluice | llama.cpp | ratio | share of the limit, both | goals |\n|" + "---|" * 7)
        for row in self.rows:
            print("| " + " | ".join(row) + " |")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--tiny")
    parser.add_argument("--text")
    parser.add_argument("--chunks", type=int, default=200, help="of the text, for perplexity; 0: all")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true", help="2 repeats, fewer requests")
    parser.add_argument("--json")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else []
    if unknown := set(options.only) - set(ALL_PARTS):
        parser.error(f"--only {', '.join(sorted(unknown))}: known are {', '.join(ALL_PARTS)}")
    for part, needed in (("tiny", "tiny"), ("perplexity", "text"), ("greedy", "text")):
        if part in options.only and not getattr(options, needed):
            parser.error(f"--only {part} needs --{needed}")
    if not options.model and not options.tiny:
        parser.error("--model or --tiny")
    options.repeats = options.repeats or (2 if options.quick else 5)
    return options


def main():
    options = parse_options()
    bin_dir = pathlib.Path(options.build, "bin").resolve()
    yardsticks.sluice_process.BIN = bin_dir
    bench = Bench(options, bin_dir)
    for path in filter(None, options.model.split(",")):
        model = Model(path, bin_dir)
        parts = options.only or PARTS.get(model.type, ("decode", "prefill"))
        bench.run(model, [part for part in parts if part != "tiny"])
    if options.tiny and (not options.only or "tiny" in options.only):
        bench.tiny(Model(options.tiny, bin_dir))
    bench.table()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(bench.report, indent=1) + "\n")


if __name__ == "__main__":
    main()
