"""A worker may die at any instruction; clients do not see it.

32 sampled streams run once undisturbed; then again and again while the worker is killed or stopped at
a random point. Every stream must end normally with the bytes of the first run, and all books must
agree. SLUICE_KILLS (default 12) sets the rounds: 50 for the long run.
"""
import os
import random
import signal
import sys
import threading

import sluice_process
from http_client import collect
from sluice_process import ServerTest, canned_model, config_with
from token_books import check_books

KILLS = int(os.environ.get("SLUICE_KILLS", "12"))
STALLS = max(1, KILLS // 6)
SEED = int(os.environ.get("TEST_SEED", "1"))
NUM_STREAMS = 32
MARKER = "CRASH-THE-WORKER"


def quick_restarts(workers, **model):
    return config_with(
        models=[canned_model(workers=workers, canned_step_us=2000, **model)],
        supervision={"restart_delay": "5ms", "restart_delay_max": "20ms",
                     # A step of a slow build must not look like a stall.
                     "stall_floor": f"{int(250 * sluice_process.PATIENCE)}ms"})


def sampled_requests(model="canned"):
    """Streams of all kinds: n, penalties, stop strings, log-probabilities, both routes. Equal in every
    run."""
    requests = []
    for i in range(NUM_STREAMS):
        fields = {"model": model, "seed": 100 + i, "max_tokens": 40 + 3 * i, "ignore_eos": True,
                  "temperature": 0.6 + 0.05 * (i % 16), "n": 1 + (i % 5 == 0) + (i % 10 == 0)}
        if i % 3 == 1:
            fields.update(presence_penalty=0.8, frequency_penalty=0.4)
        if i % 4 == 1:
            fields["stop"] = ["er", "zqx"]
        if i % 4 == 2:
            fields.update(top_p=0.9, top_k=40)
        if i % 4 == 3:
            fields.update(min_p=0.02, repetition_penalty=1.1)
        if i % 7 == 3:
            fields["logit_bias"] = {"17": 3, "40": -5}
        prompt = f"Stream number {i} tells of a river. " * (1 + i % 6)
        if i % 5 == 2:
            fields.update({"logprobs": True, "top_logprobs": i % 4} if i % 2 else {"logprobs": i % 4})
            if i % 2 == 0:
                fields["echo"] = True
        if i % 2:
            requests.append(("/v1/chat/completions",
                             {**fields, "messages": [{"role": "user", "content": prompt}]}))
        else:
            requests.append(("/v1/completions", {**fields, "prompt": prompt}))
    return requests


class Run:
    """All requests at once; `at_event` is called once, when that many events have arrived in all."""

    def __init__(self, port, requests, trigger=None, at_event=None, slow=()):
        self.results = [None] * len(requests)
        self.num_events = 0
        self.lock = threading.Lock()
        self.trigger, self.at_event = trigger, at_event
        threads = [threading.Thread(target=self.one, args=(port, i, *request, i in slow))
                   for i, request in enumerate(requests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def one(self, port, i, path, body, is_slow):
        kwargs = {"pause": 0.002, "read_bytes": 300, "receive_buffer": 2048} if is_slow else {}
        try:
            self.results[i] = collect(port, path, body, on_event=self.count, **kwargs)
        except Exception as error:  # shown by the comparison
            self.results[i] = error

    def count(self, _event):
        with self.lock:
            self.num_events += 1
            is_due = self.num_events == self.at_event
        if is_due:
            self.trigger()

    def keys(self):
        return [r if isinstance(r, Exception) else r.key() for r in self.results]

    def tokens(self):
        done = [r for r in self.results if not isinstance(r, Exception) and r.usage]
        return (sum(r.usage["completion_tokens"] for r in done),
                sum(r.usage["prompt_tokens"] for r in done))


class WorkerDeath(ServerTest):
    config = quick_restarts(workers=1)
    model = "canned"
    rounds = KILLS

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.requests = sampled_requests(cls.model)
        cls.calm = Run(cls.server.port, cls.requests)
        cls.completion_tokens, cls.prompt_tokens = cls.calm.tokens()

    def disturb(self, rng, act, slow=()):
        at = rng.randint(1, max(1, self.calm.num_events - 10))
        run = Run(self.server.port, self.requests, act, at, slow)
        cls = type(self)
        completion, prompt = run.tokens()
        cls.completion_tokens += completion
        cls.prompt_tokens += prompt
        for i, (calm, now) in enumerate(zip(self.calm.keys(), run.keys())):
            self.assertEqual(calm, now, f"stream {i}, disturbed at event {at}, seed {SEED}")

    def kill_one_worker(self, number, rng):
        pids = self.server.worker_pids()
        if pids:
            os.kill(rng.choice(pids), number)

    def test_1_the_undisturbed_run_is_complete(self):
        for i, result in enumerate(self.calm.results):
            self.assertNotIsInstance(result, Exception, f"stream {i}")
            self.assertTrue(result.is_done, f"stream {i}")
            self.assertEqual(len(result.finish), self.requests[i][1]["n"], f"stream {i}")
        again = Run(self.server.port, self.requests)
        completion, prompt = again.tokens()
        type(self).completion_tokens += completion
        type(self).prompt_tokens += prompt
        self.assertEqual(again.keys(), self.calm.keys())

    def test_2_killed_at_random_points(self):
        rng = random.Random(SEED)
        for _ in range(self.rounds):
            self.disturb(rng, lambda: self.kill_one_worker(signal.SIGKILL, rng))

    def test_3_killed_under_slow_readers(self):
        rng = random.Random(SEED + 1)
        for _ in range(max(1, self.rounds // 4)):
            self.disturb(rng, lambda: self.kill_one_worker(signal.SIGKILL, rng),
                         slow=range(0, NUM_STREAMS, 3))

    def test_4_stopped_at_random_points(self):
        rng = random.Random(SEED + 2)
        for _ in range(STALLS):
            self.disturb(rng, lambda: self.kill_one_worker(signal.SIGSTOP, rng))

    def test_5_the_books_agree(self):
        check_books(self, self.server, self.completion_tokens, self.prompt_tokens)
        # The disturbances took place, and hit running sequences.
        self.assertGreaterEqual(self.server.metric("sluice_worker_epochs_total"), self.rounds)
        self.assertGreaterEqual(self.server.metric("sluice_failovers_total"), self.rounds)


class TwoWorkers(WorkerDeath):
    config = quick_restarts(workers=2)
    rounds = max(2, KILLS // 3)


class Poison(ServerTest):
    config = quick_restarts(workers=1, canned_crash_marker=MARKER)

    def test_one_poisoned_request_among_32(self):
        requests = sampled_requests()
        calm = Run(self.server.port, requests)
        for i, result in enumerate(calm.results):
            self.assertTrue(getattr(result, "is_done", False), f"stream {i}: {result}")
        for poisoned in (5, 16):
            path, body = requests[poisoned]
            bad = dict(body)
            if "prompt" in bad:
                bad["prompt"] += MARKER
            else:
                bad["messages"] = [{"role": "user", "content": "please " + MARKER}]
            run = Run(self.server.port,
                      requests[:poisoned] + [(path, bad)] + requests[poisoned + 1:])
            result = run.results[poisoned]
            self.assertNotIsInstance(result, Exception)
            self.assertFalse(result.is_done)
            self.assertEqual(result.error and result.error["code"], "poisoned_request")
            for i, (before, now) in enumerate(zip(calm.keys(), run.keys())):
                if i != poisoned:
                    self.assertEqual(before, now, f"stream {i}")
        sluice_process.wait_until(lambda: self.server.journal().live == 0, "no live slot")


if __name__ == "__main__":
    sys.exit(sluice_process.run_main())
