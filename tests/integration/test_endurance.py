"""Endurance: many short requests with random cancels, worker kills and slow clients; then nothing may
be left: memory flat, no slot, descriptor or KV block leaked, all books equal to the token.

SLUICE_REQUESTS (default 3,000) sets the length, 200,000 for the long run (scripts/check_all):
  SLUICE_REQUESTS=200000 python3 tests/integration/test_endurance.py

Two models serve at once. Requests to `whole` always run to their end, so that the sum of their
`usage` is known exactly; those to `cut` are cancelled or read slowly. Workers of both are killed; in
the second half `whole` keeps its worker, whose memory is then watched.
"""
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import sluice_process
from http_client import Closed, Stream, collect
from sluice_process import BIN, ServerTest, canned_model, config_with, raise_descriptor_limit, wait_until
from token_books import ACCEPTED, DISCARDED, GENERATED, PROMPT

REQUESTS = int(os.environ.get("SLUICE_REQUESTS", "3000"))
SEED = int(os.environ.get("TEST_SEED", "1"))
ROUNDS = 20
SLOW_CLIENTS = 3
# What the private memory of a process may grow by from the middle third of the rounds to the last:
# the allocator's own unrest. A request that leaked 64 bytes would show in 200,000 as 4 MiB.
GROWTH_MAX = 2 << 20
IDLE_CONNECTIONS = 10_000
# Private memory of the gateway for each idle connection.
IDLE_BYTES_MAX = 16 << 10
IS_SANITIZED = os.environ.get("SLUICE_SANITIZED") == "1"


def private_bytes(pid):
    for line in pathlib.Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"no RssAnon of {pid}")


def num_descriptors(pid):
    """None where a process that can't be dumped hides them: from all but root."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return None


def fewest_descriptors(pid):
    """Of a while at rest: the connection of the question before closes a moment after its answer."""
    counts = []
    for _ in range(20):
        counts.append(num_descriptors(pid))
        time.sleep(0.01 * sluice_process.PATIENCE)
    return None if None in counts else min(counts)


def open_files(pid):
    """By number: what they are."""
    folder = pathlib.Path("/proc", str(pid), "fd")
    files = {}
    for number in sorted(os.listdir(folder), key=int):
        with contextlib.suppress(OSError):  # closed since
            files[int(number)] = os.readlink(folder / number)
    return files


class Endurance(ServerTest):
    config = config_with(
        models=[canned_model(name="whole"), canned_model(name="cut")],
        supervision={"restart_delay": "5ms", "restart_delay_max": "20ms", "stall_floor": "10s"})

    def setUp(self):
        self.rng = random.Random(SEED)
        self.usage = {"prompt": 0, "completion": 0}
        self.done = {"whole": 0, "cut": 0}
        self.kills = 0
        self.memory = []  # per round: (gateway, parent, worker of `whole`)

    def worker_pid(self, index):
        """By the parent's log: the last worker `index` that came up."""
        for line in reversed(list(self.server.log)):
            if f"event=worker_up worker={index} " in line:
                return int(line.rsplit("pid=", 1)[1].split()[0])
        raise AssertionError(f"worker {index} never came up")

    def bench(self, model, count, round_number, *more):
        report = self.server.home / f"{model}.json"
        command = [str(BIN / "sluice"), "bench", "--url", f"http://127.0.0.1:{self.server.port}/v1",
                   "--model", model, "-c", "24", "-n", str(count), "--warmup", "0", "--seed",
                   str(SEED * 1000 + round_number), "--prompt-tokens", str(self.rng.randint(1, 40)),
                   "--endpoint", self.rng.choice(["chat", "completions"]),
                   "--quiet", "--json", str(report), *more]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True), report

    def finish(self, bench):
        process, report = bench
        _, errors = process.communicate(timeout=600 * sluice_process.PATIENCE)
        result = json.loads(report.read_text())
        self.assertEqual(result["failures"], {}, errors)
        self.assertEqual(process.returncode, 0, errors)
        return result

    def slow_client(self, number, stop):
        """Reads a few bytes now and then, and leaves at some point."""
        rng = random.Random(SEED * 77 + number)
        while not stop.is_set():
            stream = Stream(self.server.port, "/v1/completions",
                            {"model": "cut", "prompt": f"slow {number}", "max_tokens": 300,
                             "ignore_eos": True}, pause=0.003, read_bytes=400, receive_buffer=2048)
            try:
                for left, _ in zip(range(rng.randint(1, 60), 0, -1), stream.events()):
                    if stop.is_set() or left == 1:
                        break
            except Closed:
                pass
            finally:
                stream.close()
            self.done["cut"] += 1

    def kill_workers(self, indices, stop):
        pause = self.rng.random() * 0.1
        while not stop.wait(pause):
            try:
                os.kill(self.worker_pid(self.rng.choice(indices)), signal.SIGKILL)
                self.kills += 1
            except ProcessLookupError:
                pass  # not back yet
            pause = 0.2 + self.rng.random()

    def run_round(self, number):
        whole = max(1, REQUESTS * 6 // 10 // ROUNDS)
        cut = max(1, REQUESTS // ROUNDS - whole)
        stop = threading.Event()
        victims = [0, 1] if number < ROUNDS // 2 else [1]
        others = [threading.Thread(target=self.slow_client, args=(i, stop)) for i in range(SLOW_CLIENTS)]
        others.append(threading.Thread(target=self.kill_workers, args=(victims, stop)))
        for thread in others:
            thread.start()
        extra = '{"ignore_eos":%s}' % self.rng.choice(["true", "false"])
        runs = [
            self.bench("whole", whole, number, "--max-tokens", str(self.rng.randint(1, 12)),
                       "--extra", extra, *(["--stream"] if number % 2 else [])),
            self.bench("cut", cut, number, "--stream", "--max-tokens", str(self.rng.randint(8, 64)),
                       "--abort-after", str(number % 4), "--extra", '{"ignore_eos":true}')]
        try:
            results = [self.finish(run) for run in runs]
        finally:
            stop.set()
            for thread in others:
                thread.join()
        self.usage["prompt"] += results[0]["window"]["prompt_tokens"]
        self.usage["completion"] += results[0]["window"]["completion_tokens"]
        self.done["whole"] += results[0]["requests"]["ok"]
        self.done["cut"] += results[1]["requests"]["ok"] + results[1]["requests"]["aborted"]

    def wait_for_rest(self):
        def is_at_rest():
            metric = self.server.metric
            return (metric("sluice_workers_up") == 2 and self.server.journal().live == 0
                    and metric(GENERATED) == metric(ACCEPTED) + metric(DISCARDED)
                    and metric("sluice_http_connections_open") == 1)  # this very question
        wait_until(is_at_rest, "the server to come to rest", 30)

    def sample_memory(self):
        pids = (self.server.gateway_pid(), self.server.process.pid, self.worker_pid(0))
        self.memory.append(tuple(private_bytes(pid) for pid in pids))

    def test_nothing_is_left_and_nothing_is_lost(self):
        self.wait_for_rest()
        gateway, parent = self.server.gateway_pid(), self.server.process.pid
        descriptors = fewest_descriptors(gateway), fewest_descriptors(parent)
        worker_descriptors = num_descriptors(self.worker_pid(0))
        started = time.monotonic()
        for number in range(ROUNDS):
            self.run_round(number)
            self.wait_for_rest()
            self.sample_memory()
        took = time.monotonic() - started

        self.assertEqual(self.server.gateway_pid(), gateway, "the gateway was restarted")
        # The last connections close a moment after their answers; what leaked would stay for ever.
        try:
            wait_until(lambda: (num_descriptors(gateway), num_descriptors(parent)) == descriptors,
                       "the descriptors of gateway and parent to be as few as before")
        except AssertionError as error:
            raise AssertionError(f"{error}: {descriptors} before, now {open_files(gateway)} in the "
                                 f"gateway, {open_files(parent)} in the parent") from None
        self.assertEqual(num_descriptors(self.worker_pid(0)), worker_descriptors)
        self.check_empty()
        self.check_books()
        self.assertGreaterEqual(self.server.metric("sluice_worker_epochs_total"), 2 + self.kills // 2)
        total = self.done["whole"] + self.done["cut"]
        self.assertGreaterEqual(total, REQUESTS)
        print(f"\n{total} requests ({self.done['cut']} cancelled or slow), {self.kills} kills of workers, "
              f"{int(self.server.metric('sluice_failovers_total'))} sequences moved, {took:.0f} s")
        self.check_memory()

    def check_empty(self):
        for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
                     "sluice_queue_requests", "sluice_queue_tokens", "sluice_tokens_pending",
                     "sluice_journal_live_slots", "sluice_http_body_bytes_held"):
            self.assertEqual(self.server.metric(name), 0, name)

    def check_books(self):
        metric, journal = self.server.metric, self.server.journal()
        self.assertEqual(metric(ACCEPTED, model_name="whole"), self.usage["completion"])
        self.assertEqual(metric(PROMPT, model_name="whole"), self.usage["prompt"])
        self.assertEqual(metric(ACCEPTED), journal.accepted)
        self.assertEqual(metric(PROMPT), journal.prompt)
        # Nobody left `whole` before the end.
        self.assertEqual(metric(DISCARDED, model_name="whole", cause="cancelled"), 0)
        self.assertGreater(metric(DISCARDED, model_name="cut"), 0)

    def check_memory(self):
        middle = self.memory[ROUNDS // 2:ROUNDS * 3 // 4]
        last = self.memory[ROUNDS * 3 // 4:]
        for column, name in enumerate(("gateway", "parent", "worker")):
            before = max(row[column] for row in middle)
            after = max(row[column] for row in last)
            print(f"{name}: private memory {self.memory[0][column] >> 10} KiB after the first round, "
                  f"{before >> 10} KiB in the third quarter, {after >> 10} KiB in the last")
            if not IS_SANITIZED:  # their allocators hold back what is freed
                self.assertLessEqual(after - before, GROWTH_MAX, name)


class IdleConnections(ServerTest):
    def test_ten_thousand_of_them(self):
        """Half stop inside a request head, half never say a word. Each is one descriptor of the gateway."""
        if raise_descriptor_limit() < IDLE_CONNECTIONS + 200:
            self.skipTest("too few descriptors are allowed here")
        gateway = self.server.gateway_pid()
        collect(self.server.port, "/v1/completions", {"model": "canned", "prompt": "a", "max_tokens": 5})
        before, held = private_bytes(gateway), []
        try:
            for i in range(IDLE_CONNECTIONS):
                held.append(socket.create_connection(("127.0.0.1", self.server.port), timeout=30))
                if i % 2:
                    held[-1].sendall(b"GET /li")
            wait_until(lambda: self.server.metric("sluice_http_connections_open") > IDLE_CONNECTIONS,
                       "all of them to be accepted")
            stream = collect(self.server.port, "/v1/completions",
                             {"model": "canned", "prompt": "river", "max_tokens": 100, "ignore_eos": True})
            self.assertTrue(stream.is_done)
            self.assertEqual(stream.usage["completion_tokens"], 100)
            each = (private_bytes(gateway) - before) / IDLE_CONNECTIONS
        finally:
            for connection in held:
                connection.close()
        print(f"\n{each:.0f} bytes of the gateway's private memory for each idle connection")
        if not IS_SANITIZED:
            self.assertLess(each, IDLE_BYTES_MAX)
        wait_until(lambda: self.server.metric("sluice_http_connections_open") == 1, "them to be gone")


class FewDescriptors(unittest.TestCase):
    # It probes memory through a pipe, and takes every object for invalid where no descriptor is left.
    @unittest.skipIf(IS_SANITIZED, "the sanitizer of undefined behaviour needs descriptors of its own")
    def test_clients_wait_where_the_system_allows_too_few(self):
        server = sluice_process.SluiceServer(config_with())
        plain = server.command
        server.command = lambda: ["prlimit", "--nofile=200:200", *plain()]
        with server:
            self.assertTrue(any("event=descriptors_few limit=200 " in line for line in server.log))
            held = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(300)]
            # It is full, and says so; nobody was cut off.
            wait_until(lambda: any("accept_paused" in line for line in server.log), "the limit")
            for connection in held:
                connection.setblocking(False)
                with self.assertRaises(BlockingIOError):
                    connection.recv(1)
            for connection in held:
                connection.close()
            wait_until(lambda: server.metric("sluice_http_connections_open") == 1, "them to be gone")
            answer = server.post("/v1/completions", {"model": "canned", "prompt": "a", "max_tokens": 2})
            self.assertEqual(answer.status, 200, answer.text)


class ClockJumps(ServerTest):
    """The wall clock jumps by ten years, forth and back, five times a second (jumping_clock.cc)."""
    config = config_with(
        models=[canned_model(canned_step_us=2000)],
        default_limits={"requests_per_minute": 40},
        http={"stream_commit": "1s"}, supervision={"restart_delay": "5ms", "restart_delay_max": "20ms"})
    fields = {"model": "canned", "prompt": "a river", "seed": 5, "max_tokens": 300, "ignore_eos": True,
              "temperature": 0.8}

    @classmethod
    def setUpClass(cls):
        if IS_SANITIZED:
            raise unittest.SkipTest("a sanitizer's run-time library must be loaded first")
        library = BIN / "libjumping_clock.so"
        cls.server = sluice_process.SluiceServer(cls.config, environment={"LD_PRELOAD": str(library)}).start()

    def test_streams_limits_and_kills_do_not_notice(self):
        dates = {self.server.request("GET", "/live").headers["date"][-17:-13] for _ in self.moments(8)}
        self.assertGreater(len(dates), 1, f"the clock does not jump: {dates}")
        calm = collect(self.server.port, "/v1/completions", self.fields)
        self.assertTrue(calm.is_done, calm.error)
        started = time.monotonic()
        killed = collect(self.server.port, "/v1/completions", self.fields, on_event=self.kill_once)
        self.assertEqual(killed.key(), calm.key())
        self.assertLess(time.monotonic() - started, 10 * sluice_process.PATIENCE)
        # The window of a minute counts 40 requests, whatever year it is.
        answers = [self.server.post("/v1/completions", {**self.fields, "max_tokens": 1})
                   for _ in self.moments(44)]
        self.assertEqual([a.status for a in answers], [200] * 38 + [429] * 6)
        self.assertTrue(50 <= int(answers[-1].headers["retry-after"]) <= 61, answers[-1].headers)
        log = "\n".join(self.server.log)
        self.assertNotIn("child_killed", log, "a stall was seen where none was")
        self.assertEqual(log.count("event=gateway_ready"), 1)

    def moments(self, count):
        """Spread over the jumps."""
        for _ in range(count):
            yield
            time.sleep(0.07)

    def kill_once(self, _event):
        if not getattr(self, "has_killed", False):
            self.has_killed = True
            os.kill(self.server.worker_pids()[0], signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(sluice_process.run_main())
