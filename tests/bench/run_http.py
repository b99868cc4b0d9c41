#!/usr/bin/env python3
"""What the HTTP path costs, against nginx and bare Beast in the same run.

  python3 tests/bench/run_http.py [--build build/release] [--repeats 5] [--seconds 3] [--json FILE]
                                  [--only rate,latency,streams,prompt,idle] [--cpus 0]

rate     one-token completions, the same POST body for all: requests per CPU second of each server
         (all its processes), and Sluice's share of nginx's
latency  open loop at 900 requests/s: percentiles of the client, and what Sluice adds to bare Beast
streams  64 saturated streams: token events per CPU second of the gateway process
prompt   inter-token latency of 32 streams, with and without a client that sends 1 MB prompts
idle     CPU of all processes without a request

Servers are measured in turn, never at once; each figure is the median of the repeats with its range.
--cpus runs client and servers on these CPUs only. On a virtual machine a hop to another, halted CPU can
cost more than all of Sluice's work for a request; one CPU for everything shows that work.
CPU seconds stand beside wall time because two cores are shared by client and server. The exit code is
1 when a request failed, never because a goal was missed.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import yardsticks
from yardsticks import Beast, Figures, Nginx, Sluice, process_cpu_seconds, tree_of

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from sluice_process import canned_model  # noqa: E402

PROMPT = "Once there was a river that ran through a quiet town to the sea."
IGNORE_EOS = '{"ignore_eos":true,"temperature":0}'
OPEN_RATE = 900
PROMPT_WORDS = 220_000  # 1 MB


class Bench:
    def __init__(self, options):
        self.bin = pathlib.Path(options.build, "bin").resolve()
        self.repeats, self.seconds = options.repeats, options.seconds
        self.failures = 0
        self.report = {}
        yardsticks.sluice_process.BIN = self.bin

    def load(self, server, *arguments, pids=None, seconds=None):
        """One run of `sluice bench`; the report as a dict."""
        counted = (["--server-pid", ",".join(map(str, pids))] if pids
                   else ["--server-tree", str(server.process.pid)])
        run = subprocess.run(
            [self.bin / "sluice", "bench", "--url", f"http://127.0.0.1:{server.port}/v1", "--quiet",
             "--json", "-", "--warmup", "0.5", "--duration", str(seconds or self.seconds),
             "--model", "canned", *counted, *arguments], capture_output=True, text=True, check=False)
        if not run.stdout:
            raise SystemExit(f"the load client failed on {server.name}: {run.stderr}")
        report = json.loads(run.stdout)
        failed = report["requests"]["failed"]
        if failed:
            print(f"  {server.name}: {failed} failed: {report['failures']}")
        self.failures += failed
        return report

    def note(self, section, name, figures, digits=0, goal=None, is_met=None):
        self.report.setdefault(section, {})[name] = figures.as_json()
        verdict = "" if goal is None else f"   goal {goal}: {'met' if is_met else 'MISSED'}"
        if goal is not None:
            self.report[section][name].update(goal=goal, met=bool(is_met))
        print(f"  {name:<44} {figures.text(digits)}{verdict}", flush=True)

    def interleaved(self, servers, run):
        """run(server) for each server in turn, `repeats` times: {name: [result, ..]}."""
        results = {server.name: [] for server in servers}
        for _ in range(self.repeats):
            for server in servers:
                results[server.name].append(run(server))
        return results

    def rate(self):
        print("rate: one-token completions, 32 clients, requests per CPU second of the server")
        servers = [Nginx(), Beast(self.bin, "preformatted"), Beast(self.bin, "serializer"), Sluice()]
        stored = []  # the store thread's share of the server's CPU
        def run(server):
            is_ours = isinstance(server, Sluice)
            begin = server.store_cpu_seconds() if is_ours else 0
            result = self.load(server, "-c", "32", "--prompt", PROMPT, "--max-tokens", "1", "--drain", "2")
            if is_ours:
                stored.append((server.store_cpu_seconds() - begin) / result["server_cpu_seconds"])
            return result
        try:
            results = self.interleaved(servers, run)
        finally:
            for server in servers:
                server.stop()
        per_cpu = {name: [r["requests_per_server_cpu_second"] for r in runs]
                   for name, runs in results.items()}
        for name, runs in results.items():
            self.note("rate", f"{name} requests/CPU s", Figures(per_cpu[name]))
            self.note("rate", f"{name} requests/s", Figures(r["requests_per_second"] for r in runs))
            self.note("rate", f"{name} CPU s of {self.seconds:g} s wall",
                      Figures(r["server_cpu_seconds"] for r in runs), 2)
        shares = Figures(s / n for s, n in zip(per_cpu["sluice"], per_cpu["nginx"]))
        self.note("rate", "sluice / nginx", shares, 3, ">= 0.25", shares.median >= 0.25)
        self.note("rate", "sluice / beast", Figures(
            s / n for s, n in zip(per_cpu["sluice"], per_cpu["beast"])), 3)
        share = Figures(stored)
        self.note("rate", "usage store / sluice CPU", share, 3, "< 0.05", share.median < 0.05)

    def latency(self):
        print(f"latency: open loop, {OPEN_RATE} requests/s, us from the scheduled arrival")
        servers = [Beast(self.bin, "preformatted"), Sluice()]
        try:
            results = self.interleaved(servers, lambda server: self.load(
                server, "--rate", str(OPEN_RATE), "--prompt", PROMPT, "--max-tokens", "1"))
        finally:
            for server in servers:
                server.stop()
        for quantile, bound in (("p50", 120), ("p99", 1000)):
            series = {name: [r["latency_us"]["e2e"][quantile] for r in runs]
                      for name, runs in results.items()}
            for name, values in series.items():
                self.note("latency", f"{name} {quantile}", Figures(values), 1)
            added = Figures(s - b for s, b in zip(series["sluice"], series["beast"]))
            self.note("latency", f"added {quantile}", added, 1, f"<= {bound} us", added.median <= bound)

    def streams(self):
        print("streams: 64 saturated streams, one token per event, CPU of the gateway process alone")
        server = Sluice(models=[canned_model(sequences_max=64, num_blocks=65536)])
        try:
            runs = [self.load(server, "-c", "64", "--stream", "--prompt", PROMPT, "--max-tokens", "2000",
                              "--extra", IGNORE_EOS, "--drain", "0", pids=[server.gateway_pid()])
                    for _ in range(self.repeats)]
        finally:
            server.stop()
        figures = Figures(r["text_events_per_server_cpu_second"] for r in runs)
        self.note("streams", "events/gateway CPU s", figures, 0, ">= 1,000,000", figures.median >= 1e6)
        self.note("streams", "events/s", Figures(r["text_events_per_second"] for r in runs))
        self.note("streams", "gateway CPU s", Figures(r["server_cpu_seconds"] for r in runs), 2)
        self.note("streams", "client CPU s", Figures(r["client_cpu_seconds"] for r in runs), 2)

    def prompt(self):
        print("prompt: inter-token latency of 32 streams (us), a step each 2 ms, without and with a "
              "client that sends one 1 MB prompt after another")
        # Different prompts are prefilled; an equal one is found in the prefix cache, so that many more
        # of them pass through parsing, tokenizing and the ring.
        for kind, num_prompts in (("different", 48), ("equal", 1)):
            server = Sluice(ring_bytes="16MiB", models=[canned_model(
                context_tokens=700_000, block_tokens=64, num_blocks=30_000, canned_step_us=2000)])
            calm, disturbed, prompts = [], [], []
            try:
                for repeat in range(self.repeats):
                    calm.append(self.streams_itl(server))
                    with tempfile.NamedTemporaryFile("r") as out:
                        other = self.start_prompts(server, out.name, num_prompts, repeat)
                        disturbed.append(self.streams_itl(server))
                        other.wait()
                        report = json.loads(pathlib.Path(out.name).read_text())
                    self.failures += report["requests"]["failed"]
                    prompts.append(report["requests"]["ok"])
            finally:
                server.stop()
            self.note("prompt", f"{kind}: p99 alone", Figures(calm), 1)
            self.note("prompt", f"{kind}: p99 beside 1 MB prompts", Figures(disturbed), 1)
            self.note("prompt", f"{kind}: 1 MB prompts answered", Figures(prompts))
            ratio = Figures(d / c for d, c in zip(disturbed, calm))
            self.note("prompt", f"{kind}: ratio", ratio, 3, "<= 1.2", ratio.median <= 1.2)

    def streams_itl(self, server):
        return self.load(server, "-c", "32", "--stream", "--prompt", PROMPT, "--max-tokens", "300",
                         "--extra", IGNORE_EOS)["latency_us"]["itl"]["p99"]

    def start_prompts(self, server, json_file, num_prompts, seed):
        return subprocess.Popen(
            [self.bin / "sluice", "bench", "--url", f"http://127.0.0.1:{server.port}/v1", "--quiet",
             "--json", json_file, "--warmup", "0", "--duration", str(self.seconds + 1), "--model",
             "canned", "--prompt-tokens", str(PROMPT_WORDS), "--prompts", str(num_prompts), "--seed", str(seed), "--max-tokens", "1"])

    def idle(self):
        print("idle: CPU of all processes, percent of one core")
        server = Sluice()
        try:
            self.load(server, "-c", "4", "--prompt", PROMPT, "--max-tokens", "4", seconds=0.5)
            time.sleep(1)
            shares = []
            for _ in range(self.repeats):
                pids = tree_of(server.process.pid)
                begin, used = time.monotonic(), sum(map(process_cpu_seconds, pids))
                time.sleep(2)
                used = sum(map(process_cpu_seconds, pids)) - used
                shares.append(100 * used / (time.monotonic() - begin))
        finally:
            server.stop()
        figures = Figures(shares)
        self.note("idle", "percent", figures, 3, "< 1 %", figures.median < 1)


def main():
    parts = ["rate", "latency", "streams", "prompt", "idle"]
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(yardsticks.sluice_process.SOURCE / "build/release"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default=",".join(parts))
    parser.add_argument("--cpus", help="CPU numbers with commas, for client and servers")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if not set(wanted) <= set(parts):
        parser.error(f"--only takes some of {','.join(parts)}")
    if options.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    bench = Bench(options)
    for part in wanted:
        getattr(bench, part)()
    bench.report["failures"] = bench.failures
    print(f"failed requests: {bench.failures}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(bench.report, indent=2) + "\n")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
