"""A model on a CUDA device. Where there is none: the worker says so in words that help, and the start
ends with its error. Where there is one: Brook answers from it as it does from the CPU, confined, its
streams outlive the worker, and a worker on trial computes its golden digest on it."""
import itertools
import os
import pathlib
import re
import shutil
import signal
import tempfile
import threading
import unittest

import sluice_process
from http_client import collect
from sluice_process import BIN, SOURCE, ServerTest, SluiceServer, config_with, run_main
from test_breakers import Operator
from token_books import ACCEPTED, DISCARDED, GENERATED

MODULE = "sluice_cuda.so"
TRIALS = 3  # a worker's breaker closes after so many
# One crash opens it.
BREAKERS = {"workers": {"failures_max": 1, "open_min": "100ms", "probes": TRIALS}}


def cuda_config():
    return config_with(models=[{
        "name": "tiny", "kind": "llama", "device": "cuda", "num_blocks": 64, "context_tokens": 512,
        "path": str(SOURCE / "tests" / "golden" / "tiny_llama" / "bf16_sharded"),
        "tokenizer": str(SOURCE / "models" / "canned" / "tokenizer.model")}])


class ServerFrom(SluiceServer):
    """The programs of another folder."""

    def __init__(self, folder, config):
        super().__init__(config, environment={"SLUICE_DATA_DIR": str(SOURCE / "models")})
        self.folder = folder

    def command(self):
        return [str(self.folder / "sluice"), *super().command()[1:]]


class Device(unittest.TestCase):
    def words_of_a_refused_start(self, folder):
        server = ServerFrom(folder, cuda_config()).spawn()
        try:
            code = server.wait(60)
            sluice_process.wait_until(lambda: server.lines.qsize() > 0, "the end of the output")
            output = "\n".join(server.log)
            self.assertEqual(code, 1, output)
            self.assertIn("worker_failed", output)
            self.assertNotIn("sluice ready", output)
            return output
        finally:
            server.kill()
            server.close()

    def test_a_worker_without_a_device_says_so_and_ends(self):
        if not (BIN / MODULE).exists():
            self.skipTest("this build found no CUDA toolkit")
        if os.path.exists("/dev/nvidiactl"):
            self.skipTest("there is a CUDA device")
        self.assertIn("device: cuda: no device to be had: ", self.words_of_a_refused_start(BIN))

    def test_a_build_without_cuda_says_what_it_lacks(self):
        with tempfile.TemporaryDirectory(prefix="sluice-bin-") as folder:
            folder = pathlib.Path(folder)
            for program in ("sluice", "sluice-worker"):
                shutil.copy2(BIN / program, folder / program)
            output = self.words_of_a_refused_start(folder)
            self.assertIn(str(folder / MODULE), output)
            self.assertIn("a build that finds the CUDA toolkit makes it", output)


class OnTrial(ServerTest):
    """A worker that crashed is let in again after requests on trial. For each it computes its golden digest first:
    what the first one gave, the others must give. `model` has two workers."""
    model = None

    def pid_of(self, worker):
        return int(re.findall(rf"event=worker_up worker={worker} epoch=\d+ pid=(\d+)", "\n".join(self.server.log))[-1])

    def pass_trials(self):
        server, operator = self.server, Operator(self.server)
        first, other = (row["id"] for row in operator("GET", "/workers")["data"] if row["model"] == self.model)

        def moves():
            return [(past["to"], past["reason"]) for past in operator("GET", f"/breakers/worker:{first}")["history"]]

        def answer():
            return server.post("/v1/completions", {"model": self.model, "prompt": "One", "max_tokens": 8,
                                                   "ignore_eos": True, "temperature": 0})

        def wait_for(worker):
            sluice_process.wait_until(lambda: operator("GET", f"/workers/{worker}")["state"] == "serving",
                                      f"worker {worker} to serve", timeout=60)
        wait_for(first)
        wait_for(other)
        os.kill(self.pid_of(first), signal.SIGSEGV)
        sluice_process.wait_until(lambda: moves() == [("open", "failures")], "the breaker to open")
        wait_for(first)
        operator("POST", f"/workers/{other}/drain")  # so that the worker on trial gets all
        answers = [answer() for _ in range(TRIALS)]
        self.assertEqual({got.status for got in answers}, {200}, [got.text for got in answers])
        self.assertEqual(moves(), [("open", "failures"), ("half_open", "retry_due"), ("closed", "probes_passed")])
        self.assertEqual(server.metric("sluice_breaker_worker_transitions_total", reason="golden_digest"), 0)
        for state in ("open", "half_open"):
            self.assertEqual(server.metric("sluice_breaker_workers", state=state), 0)
        operator("POST", f"/workers/{other}/resume")
        answers += [answer() for _ in range(4)]
        self.assertEqual([got.json()["usage"]["completion_tokens"] for got in answers], [8] * len(answers))


class OnTrialOnTheCpu(OnTrial):
    model = "cpu"
    config = config_with(breakers=BREAKERS, models=[
        {"name": "cpu", "kind": "llama", "context_tokens": 256, "num_blocks": 64, "threads": 1, "workers": 2}])

    def test_a_worker_on_trial_is_let_in_again(self):
        self.pass_trials()


@unittest.skipUnless(os.path.exists("/dev/nvidiactl") and (BIN / MODULE).exists(), "no CUDA device here")
class BrookOnADevice(OnTrial):
    model = "device"
    config = config_with(breakers=BREAKERS, models=[
        {"name": "device", "kind": "llama", "device": "cuda", "context_tokens": 1024, "workers": 2},
        {"name": "cpu", "kind": "llama", "context_tokens": 1024, "num_blocks": 512, "threads": 2}])

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # The server is ready when its first model is.
        for model in ("cpu", "device"):
            body = {"model": model, "prompt": "One", "max_tokens": 1}
            sluice_process.wait_until(lambda: cls.server.post("/v1/completions", body).status == 200,
                                      f"the first answer of {model}", timeout=60)

    def body(self, model, i, **fields):
        text = f"Question {i}: what does the gateway do with request number {i * 7}?"
        return {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0,
                "max_tokens": 120, "ignore_eos": True, **fields}

    def all_streams(self, model, count, at_event=None):
        """What `count` streams at once deliver; `at_event` runs once, in the middle of the first."""
        results = [None] * count

        def one(i):
            events = itertools.count()

            def on_event(_):
                if at_event and i == 0 and next(events) == 20:
                    at_event()

            results[i] = collect(self.server.port, "/v1/chat/completions", self.body(model, i),
                                 on_event=on_event)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            self.assertTrue(result.is_done, result.error)
            self.assertEqual(result.usage["completion_tokens"], 120)
        return [result.texts[0] for result in results]

    def test_greedy_answers_are_those_of_the_cpu(self):
        on_cpu, on_device = (self.all_streams(model, 16) for model in ("cpu", "device"))
        equal = sum(a == b for a, b in zip(on_cpu, on_device))
        # Sums of another order may turn a token whose two best logits are all but equal.
        self.assertGreaterEqual(equal, 15, list(zip(on_cpu, on_device)))

    def test_a_worker_on_trial_is_let_in_again(self):
        self.pass_trials()

    def test_its_fingerprint_is_not_that_of_the_cpu(self):
        answers = [self.server.post("/v1/chat/completions", self.body(model, 1)).json()
                   for model in ("device", "cpu")]
        self.assertNotEqual(*(answer["system_fingerprint"] for answer in answers))

    def test_streams_outlive_the_worker(self):
        before = self.all_streams("device", 8)
        pids = self.server.worker_pids()

        def kill_device_workers():
            for pid in pids:
                maps = pathlib.Path("/proc", str(pid), "maps").read_text()
                if MODULE in maps:
                    os.kill(pid, signal.SIGKILL)
                    return

        after = self.all_streams("device", 8, kill_device_workers)
        # Continuity `tokens`: what was sent stays, the rest may turn at a near-tie.
        self.assertGreaterEqual(sum(a == b for a, b in zip(before, after)), 7, list(zip(before, after)))
        metric = self.server.metric
        sluice_process.wait_until(lambda: self.server.journal().live == 0, "no live slot in the journal")
        sluice_process.wait_until(lambda: metric(GENERATED) == metric(ACCEPTED) + metric(DISCARDED),
                                  "generated = accepted + discarded")


if __name__ == "__main__":
    run_main()
