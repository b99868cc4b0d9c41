"""Limits that three gateways share through a real redis-server: no minute of all together holds more
than the limit, in both modes, whatever becomes of the server (killed, empty or with its data,
stopped) and of a gateway. Skips, visibly, where no redis-server is installed.
"""
import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

from http_client import Closed, Stream
from sluice_process import SluiceServer, canned_model, children_of, config_with, run_main, wait_until

REDIS = shutil.which("redis-server")
LEASE_S = 0.8
WAIT_MAX_S = 0.4
COMMAND_TIMEOUT_S = 0.2
LIMIT = 3000


def bearer(key):
    return {"Authorization": "Bearer " + key}


def tenant(name, **limits):
    digest = hashlib.sha256(f"sk-{name}".encode()).hexdigest()
    return {"name": name, "keys": [{"name": "only", "sha256": digest}], "limits": limits}


def completion(max_tokens, **changes):
    return {"model": "canned", "prompt": "river", "max_tokens": max_tokens, "ignore_eos": True, **changes}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Redis:
    PASSWORD = "correct-horse"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="sluice-redis-")
        self.port = free_port()
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [REDIS, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes",
             "--appendfsync", "always", "--dir", self.folder, "--requirepass", self.PASSWORD],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def forget(self):
        shutil.rmtree(os.path.join(self.folder, "appendonlydir"))

    def signal(self, number):
        self.process.send_signal(number)

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Gateways(unittest.TestCase):
    MODE = "leased"
    TENANTS = [tenant("metered", tokens_per_minute=LIMIT, requests_per_minute=10_000),
               tenant("whole", tokens_per_minute=500),
               tenant("stepwise", tokens_per_minute=700, reserve="incremental"),
               tenant("daily", tokens_per_day=3000, monthly_budget=10**9),
               tenant("slow", tokens_per_minute=50_000),
               tenant("parallel", concurrent_requests=2),
               tenant("counted", requests_per_minute=4),
               tenant("free")]

    @classmethod
    def make(cls, **model):
        config = config_with(
            models=[canned_model(**model)], tenants=cls.TENANTS,
            quota_store={"kind": "redis", "port": cls.redis.port, "mode": cls.MODE,
                         "password_file": cls.password_file,
                         "lease_time": f"{int(LEASE_S * 1000)}ms", "wait_max": f"{int(WAIT_MAX_S * 1000)}ms",
                         "command_timeout": f"{int(COMMAND_TIMEOUT_S * 1000)}ms"})
        return SluiceServer(config)

    @classmethod
    def setUpClass(cls):
        if REDIS is None:
            raise unittest.SkipTest("no redis-server")
        cls.redis = Redis()
        cls.addClassCleanup(cls.redis.close)
        cls.password_file = os.path.join(cls.redis.folder, "password")
        with open(cls.password_file, "w") as file:
            file.write(Redis.PASSWORD + "\n")
        cls.gateways = [cls.make() for _ in range(3)]
        for gateway in cls.gateways:
            cls.addClassCleanup(gateway.close)
            gateway.spawn()
        for gateway in cls.gateways:
            gateway.started()
        for gateway in cls.gateways:
            cls.wait_for_state(gateway, "connected")

    @classmethod
    def tearDownClass(cls):
        for gateway in cls.gateways:
            assert not any(Redis.PASSWORD in line for line in gateway.log), "the password is in a log"

    def run(self, result=None):
        num_bad = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > num_bad:
            for gateway in self.gateways:
                print("\n".join(["---- gateway log"] + list(gateway.log)[-12:]))

    @staticmethod
    def wait_for_state(gateway, state):
        def is_so():
            response = gateway.request("GET", "/ready")
            return response.status == 200 and response.json()["quota_store"] == state
        wait_until(is_so, f"a store that is {state}")

    def post(self, gateway, name, body):
        return gateway.post("/v1/completions", body, bearer("sk-" + name))

    def assert_unavailable(self, response):
        self.assertEqual(response.status, 503, response.text)
        self.assertEqual(response.json()["error"]["code"], "quota_store_unavailable")
        self.assertIn("retry-after", response.headers)

    def billed(self, name):
        """On the disks of all three."""
        total = 0
        for gateway in self.gateways:
            wait_until(lambda: gateway.metric("sluice_store_usage_waiting") == 0
                       and gateway.metric("sluice_journal_live_slots") == 0, "the disk")
            store = sqlite3.connect(f"file:{gateway.state_dir}/store.db?mode=ro", uri=True, timeout=10)
            try:
                total += store.execute(
                    "SELECT COALESCE(SUM(prompt + output), 0) FROM usage_days JOIN usage_accounts "
                    "ON id = account WHERE tenant = ?", (name,)).fetchone()[0]
            finally:
                store.close()
        return total

    def use_up(self, name, refusals=3):
        """All three at once, until each was refused so often; what clients were told they used."""
        used, errors = [], []
        def client(number, gateway):
            rng = random.Random(number)
            refused = 0
            while refused < refusals:
                response = self.post(gateway, name, completion(rng.randint(1, 60)))
                if response.status == 200:
                    used.append(response.json()["usage"]["total_tokens"])
                    continue
                refused += 1
                error = response.json()["error"]
                if response.status != 429 or error["code"] != "rate_limit_exceeded":
                    errors.append((response.status, error))
                elif not 0 < float(response.headers["retry-after"]) <= 62:
                    errors.append(response.headers)
        threads = [threading.Thread(target=client, args=(i, self.gateways[i % 3])) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        return sum(used)


class SharedLimits:
    def test_no_minute_of_three_gateways_holds_more(self):
        used = self.use_up("metered")
        billed = self.billed("metered")
        print(f"{self.MODE}: limit={LIMIT} billed={billed}")
        self.assertEqual(billed, used)
        self.assertLessEqual(billed, LIMIT)
        self.assertGreater(billed, LIMIT * 4 // 5, "the limit was hardly used")
        # Everybody knows what the others used, as far as it was told.
        quota = self.gateways[0].request("GET", "/v1/quota", headers=bearer("sk-metered"))
        self.assertEqual(quota.status, 200, quota.text)

    def test_a_limit_that_just_covers_the_first_request(self):
        prompt = self.post(self.gateways[0], "free", completion(1)).json()["usage"]["prompt_tokens"]
        first = self.post(self.gateways[1], "whole", completion(500 - prompt))
        self.assertEqual(first.status, 200, first.text)
        def refused():
            second = self.post(self.gateways[2], "whole", completion(1))
            self.assertEqual(second.status, 429, second.text)
            return float(second.headers["retry-after"])
        # At once it may hear of a lease that might come back; then it knows that all was used.
        self.assertLessEqual(refused(), 62)
        wait_until(lambda: 30 < refused() <= 62, "the minute's end")

    def test_requests_that_only_count(self):
        statuses = [gateway.post("/tokenize", {"model": "canned", "prompt": "river"},
                                 bearer("sk-counted")).status
                    for _ in range(3) for gateway in self.gateways]
        self.assertEqual(statuses.count(200), 4)
        self.assertEqual(statuses.count(429), 5)

    def test_a_stream_extends_and_stops_at_the_shared_limit(self):
        streams = []
        for gateway in self.gateways:
            stream = Stream(gateway.port, "/v1/completions", completion(600), bearer("sk-stepwise"))
            streams.append(stream)
            stream.open()
            if stream.status == 200:
                with contextlib.suppress(Closed):  # an error event is the last one
                    for _ in stream.events():
                        pass
            stream.close()
        self.assertTrue(streams[0].is_done, streams[0].error)
        for stream in streams[1:]:
            self.assertFalse(stream.is_done)
            if stream.status == 200:
                self.assertEqual(stream.error["code"], "rate_limit_exceeded")
            else:
                self.assertEqual(stream.status, 429)
        self.assertLessEqual(self.billed("stepwise"), 700)
        self.assertGreater(self.billed("stepwise"), 600)


@unittest.skipIf(REDIS is None, "no redis-server")
class Synchronous(SharedLimits, Gateways):
    MODE = "synchronous"


@unittest.skipIf(REDIS is None, "no redis-server")
class Leased(SharedLimits, Gateways):
    MODE = "leased"

    def test_the_server_goes_and_comes_back(self):
        self.use_up("metered", refusals=1)
        before = self.billed("metered")
        for is_empty in (True, False):
            self.redis.kill()
            if is_empty:
                self.redis.forget()
            for gateway in self.gateways:
                wait_until(lambda: self.post(gateway, "slow", completion(1)).status == 503, "the refusal")
                begin = time.monotonic()
                self.assert_unavailable(self.post(gateway, "slow", completion(3000)))
                self.assertLess(time.monotonic() - begin, WAIT_MAX_S + 1)
                self.assertEqual(self.post(gateway, "free", completion(20)).status, 200)
                self.assertEqual(gateway.metric("sluice_quota_store_connected"), 0)
                self.wait_for_state(gateway, "unavailable")
            self.redis.start()
            for gateway in self.gateways:
                self.wait_for_state(gateway, "connected")
                self.assertEqual(self.post(gateway, "slow", completion(50)).status, 200)
                # What was used is known again, though the server forgot it.
                refused = self.post(gateway, "metered", completion(60))
                self.assertEqual(refused.status, 429, refused.text)
        self.assertEqual(self.billed("metered"), before)
        log = "\n".join(self.gateways[0].log)
        self.assertIn("event=quota_store_unavailable reason=", log)
        self.assertGreaterEqual(log.count("event=quota_store_connected"), 3)

    def test_the_server_is_slow(self):
        self.redis.signal(signal.SIGSTOP)
        try:
            for gateway in self.gateways:
                begin = time.monotonic()
                self.assert_unavailable(self.post(gateway, "slow", completion(3000)))
                self.assertLess(time.monotonic() - begin, WAIT_MAX_S + 1)
                self.assertEqual(self.post(gateway, "free", completion(20)).status, 200)
        finally:
            self.redis.signal(signal.SIGCONT)
        for gateway in self.gateways:
            self.wait_for_state(gateway, "connected")
            self.assertEqual(self.post(gateway, "slow", completion(3000)).status, 200)

    def test_a_gateway_that_dies_leaves_its_leases(self):
        dying = self.make(canned_step_us=20_000)
        self.addCleanup(dying.close)
        dying.start()
        self.wait_for_state(dying, "connected")
        other = self.gateways[1]
        held = []
        for _ in range(2):
            stream = Stream(dying.port, "/v1/completions", completion(2000), bearer("sk-parallel"))
            next(stream.events())
            held.append(stream)
        spent = self.post(dying, "daily", completion(10)).json()["usage"]["total_tokens"]
        refused = self.post(other, "parallel", completion(10))
        self.assertEqual((refused.status, refused.json()["error"]["code"]), (429, "concurrency_limit"))
        time.sleep(LEASE_S / 3)  # what it spent is told every tenth of a lease
        for pid in children_of(dying.process.pid) + [dying.process.pid]:
            os.kill(pid, signal.SIGKILL)
        dying.process.wait()
        begin = time.monotonic()
        wait_until(lambda: self.post(other, "parallel", completion(10)).status == 200, "its lease's end")
        self.assertLess(time.monotonic() - begin, LEASE_S + 2)
        prompt = self.post(other, "free", completion(1)).json()["usage"]["prompt_tokens"]
        left = 3000 - spent - prompt
        for stream in held:
            stream.close()
        over = self.post(other, "daily", completion(left + 1))
        self.assertEqual(over.status, 429, over.text)
        exact = wait_until(lambda: (lambda r: r if r.status == 200 else None)(
            self.post(other, "daily", completion(left))), "the rest of the day")
        self.assertEqual(exact.json()["usage"]["total_tokens"], left + prompt)


if __name__ == "__main__":
    run_main()
