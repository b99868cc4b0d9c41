"""llama.cpp's own tools as the benches call them: llama-bench, llama-batched-bench, llama-server and
llama-perplexity of one folder. Nothing of llama.cpp is part of this project. Standard library only."""
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import urllib.request

TIMEOUT = 3600


class Tools:
    def __init__(self, folder, threads):
        self.folder, self.threads = pathlib.Path(folder), str(threads)
        self.cpu_seconds = 0.0  # of all tools so far
        if not (self.folder / "llama-bench").exists():
            raise SystemExit(f"{folder} holds no llama-bench")

    def has(self, program):
        return (self.folder / program).exists()

    def run(self, program, *arguments):
        """What the tool says: standard output, standard error."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen([self.folder / program, "-t", self.threads, *map(str, arguments)],
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
            deadline = time.monotonic() + TIMEOUT
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(0.002)
            process.returncode = os.waitstatus_to_exitcode(ended[1])
            self.cpu_seconds += ended[2].ru_utime + ended[2].ru_stime
            out.seek(0)
            errors.seek(0)
            said, complaints = out.read(), errors.read()
        if process.returncode:
            raise SystemExit(f"{program}: exit {process.returncode}: {complaints[-2000:]}")
        return said, complaints

    def bench(self, model, prompt, tokens):
        """Tokens per second of a prompt of that length, or of so many decoded tokens (the other 0)."""
        said, _ = self.run("llama-bench", "-m", model, "-p", prompt, "-n", tokens, "-r", 1, "-o", "json")
        return json.loads(said)[0]["avg_ts"]

    def batched(self, model, streams, prompt, tokens):
        """Tokens per second of all streams together while they decode."""
        said, _ = self.run("llama-batched-bench", "-m", model, "-c", max(streams * (prompt + tokens), 512),
                           "-b", 512, "-npp", prompt, "-ntg", tokens, "-npl", streams, "--output-format", "jsonl")
        return json.loads([line for line in said.splitlines() if line.startswith("{")][-1])["speed_tg"]

    def perplexity(self, model, text, context, chunks):
        said, complaints = self.run("llama-perplexity", "-m", model, "-f", text, "-c", context,
                                    *(["--chunks", chunks] if chunks else []))
        found = re.search(r"PPL = ([0-9.]+)", said + complaints)
        if not found:
            raise SystemExit("llama-perplexity gave no estimate: " + (said + complaints)[-1000:])
        return float(found.group(1))


class Server:
    """llama-server with `slots` parallel sequences of `context` tokens each; load_seconds: until it is ready. By
    default it runs the model once before it is; measurements of requests do without."""

    name = "llama.cpp"

    def __init__(self, tools, model, slots, context, options=("--no-warmup",)):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = tempfile.TemporaryFile("w+")
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [tools.folder / "llama-server", "-m", model, "-t", tools.threads, "--host", "127.0.0.1", "--port",
             str(self.port), "-np", str(slots), "-c", str(slots * context), *options],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() - begin > 300:
                self.process.kill()
                self.log.seek(0)
                raise SystemExit("llama-server does not start: " + self.log.read()[-2000:])
            time.sleep(0.005)
        self.load_seconds = time.monotonic() - begin

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
