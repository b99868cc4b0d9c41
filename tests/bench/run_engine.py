#!/usr/bin/env python3
"""The engine against llama.cpp on the same GGUF files, interleaved in one run.

  python3 tests/bench/run_engine.py --llama DIR --model FILE.gguf[,FILE.gguf] [--build build/release]
          [--threads 2] [--repeats 5] [--json FILE] [--only decode,prefill,streams,busy,load]

decode   one stream of 64 tokens after a prompt of 16: tokens per second
prefill  a prompt of 512 tokens: tokens per second
streams  8, 16 and 32 streams of 32 tokens after prompts of 16, all started at once: tokens per second
busy     decode beside a thread that counts in a loop: the share of its undisturbed rate that each keeps
load     from the start of the process to its readiness, the file in the page cache: seconds

DIR holds llama.cpp's llama-bench, llama-batched-bench and llama-server. Sluice is measured through HTTP
by the wall clock of its clients, so its own server and the prompts of the first two rows count against
it; llama.cpp's figures are what its own tools say of the same work. Both use the same number of threads.
Every figure is the median of the repeats with its range; a ratio is the median over the pairs. The exit
code is 1 when a run failed, never because of a figure.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import threading
import time
import urllib.request

import yardsticks
from yardsticks import Figures, Sluice, process_cpu_seconds, tree_of

PROMPT = [300 + i * 7919 % 997 for i in range(16)]
LONG_PROMPT = [300 + i * 7919 % 997 for i in range(512)]


class SluiceEngine:
    def __init__(self, model, threads):
        started = time.monotonic()
        self.server = Sluice(
            models=[{"name": "m", "kind": "llama", "path": str(model), "threads": threads,
                     "prefix_cache": False, "context_tokens": 2048, "step_tokens_max": 512}])
        self.load_seconds = time.monotonic() - started

    def complete(self, prompt, tokens):
        body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True,
                           "temperature": 0}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.port}/v1/completions", body,
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as response:
            usage = json.load(response)["usage"]
        assert usage["completion_tokens"] == tokens, usage

    def rate(self, streams, prompt, tokens, counted):
        """`counted` tokens per second of wall clock over all streams; CPU seconds of the server."""
        pids = tree_of(self.server.process.pid)
        cpu, begin = sum(map(process_cpu_seconds, pids)), time.monotonic()
        failures = []

        def run():
            try:
                self.complete(prompt, tokens)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)
        threads = [threading.Thread(target=run) for _ in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begin
        if failures:
            raise SystemExit(f"sluice: {failures[0]}")
        return streams * counted / seconds, sum(map(process_cpu_seconds, pids)) - cpu


class LlamaCpp:
    def __init__(self, folder, model, threads):
        self.folder, self.model, self.threads = pathlib.Path(folder), str(model), str(threads)

    def run(self, program, *arguments):
        result = subprocess.run([self.folder / program, "-m", self.model, "-t", self.threads, *arguments],
                                capture_output=True, text=True, check=False, timeout=1800)
        if result.returncode:
            raise SystemExit(f"{program}: {result.stderr[-2000:]}")
        return result.stdout

    def bench(self, prompt, tokens):
        rows = json.loads(self.run("llama-bench", "-p", str(prompt), "-n", str(tokens), "-r", "1", "-o", "json"))
        return rows[0]["avg_ts"]

    def batched(self, streams, prompt, tokens):
        out = self.run("llama-batched-bench", "-c", str(streams * (prompt + tokens)), "-b", "512",
                       "-npp", str(prompt), "-ntg", str(tokens), "-npl", str(streams),
                       "--output-format", "jsonl")
        row = json.loads([line for line in out.splitlines() if line.startswith("{")][-1])
        return row["speed_tg"]

    def load_seconds(self):
        with yardsticks.socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        begin = time.monotonic()
        process = subprocess.Popen(
            [self.folder / "llama-server", "-m", self.model, "-t", self.threads, "--port", str(port),
             "--no-warmup"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                        if response.status == 200:
                            return time.monotonic() - begin
                except OSError:
                    time.sleep(0.005)
            raise SystemExit("llama-server ended")
        finally:
            process.terminate()
            process.wait()


class Busy:
    """A thread of another process that counts, for as long as the `with` lasts."""

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Bench:
    def __init__(self, options, model):
        self.model, self.repeats, self.threads = model, options.repeats, options.threads
        self.llama = LlamaCpp(options.llama, model, options.threads)
        self.report = {}

    def note(self, name, sluice, llama, unit, digits=1):
        """Both in pairs; more is better."""
        ratio = Figures(s / b for s, b in zip(sluice, llama))
        self.report[name] = {"sluice": Figures(sluice).as_json(), "llama.cpp": Figures(llama).as_json(),
                             "ratio": ratio.as_json()}
        print(f"  {name:<22} sluice {Figures(sluice).text(digits)}   llama.cpp {Figures(llama).text(digits)} "
              f"{unit}   ratio {ratio.text(2)}", flush=True)

    def pairs(self, sluice, llama):
        ours, theirs = [], []
        for _ in range(self.repeats):
            ours.append(sluice())
            theirs.append(llama())
        return ours, theirs

    def measure(self, name, engine, streams, prompt, tokens, counted, llama):
        cpu = []

        def ours():
            rate, seconds = engine.rate(streams, prompt, tokens, counted)
            cpu.append(seconds)
            return rate
        self.note(name, *self.pairs(ours, llama), "tokens/s")
        self.report[name]["sluice_cpu_seconds"] = Figures(cpu).as_json()

    def decode(self, engine):
        self.measure("decode", engine, 1, PROMPT, 64, 64, lambda: self.llama.bench(0, 64))

    def prefill(self, engine):
        self.measure("prefill 512", engine, 1, LONG_PROMPT, 1, 512, lambda: self.llama.bench(512, 0))

    def streams(self, engine):
        for streams in (8, 16, 32):
            self.measure(f"{streams} streams", engine, streams, PROMPT, 32, 32,
                         lambda n=streams: self.llama.batched(n, len(PROMPT), 32))

    def busy(self, engine):
        def kept(run):
            quiet = run()
            with Busy():
                return run() / quiet
        ours, theirs = self.pairs(lambda: kept(lambda: engine.rate(1, PROMPT, 64, 64)[0]),
                                  lambda: kept(lambda: self.llama.bench(0, 64)))
        self.note("kept beside a thread", ours, theirs, "of the rate", 2)

    def load(self, _):
        def ours():
            engine = SluiceEngine(self.model, self.threads)
            engine.server.stop()
            return engine.load_seconds
        seconds, theirs = self.pairs(ours, self.llama.load_seconds)
        self.note("load, seconds", seconds, theirs, "s (less is better)", 2)

    def run(self, only):
        print(self.model)
        engine = SluiceEngine(self.model, self.threads)
        try:
            engine.rate(1, PROMPT, 8, 8)
            for name in only:
                if name != "load":
                    getattr(self, name)(engine)
        finally:
            engine.server.stop()
        if "load" in only:
            self.load(None)


def main():
    parts = ("decode", "prefill", "streams", "busy", "load")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("--only", default=",".join(parts))
    options = parser.parse_args()
    only = options.only.split(",")
    if unknown := set(only) - set(parts):
        parser.error(f"--only {', '.join(sorted(unknown))}: known are {', '.join(parts)}")
    yardsticks.sluice_process.BIN = pathlib.Path(options.build, "bin").resolve()
    report = {}
    for model in options.model.split(","):
        bench = Bench(options, pathlib.Path(model).resolve())
        bench.run(only)
        report[model] = bench.report
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
