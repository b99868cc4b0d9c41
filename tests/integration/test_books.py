"""The books survive what may happen to them: kill -9 of gateway, worker and parent under load, a
restart of everything, a loss of power, a full disk. Money is counted to the token.
SLUICE_KILLS (default 6) sets the rounds of the first test, SLUICE_CLIENTS (default 8) who streams
meanwhile, TEST_SEED the moments.
"""
import hashlib
import os
import random
import re
import resource
import signal
import sqlite3
import threading
import time
import unittest

from http_client import Closed, Stream
from sluice_process import SluiceServer, canned_model, children_of, config_with, run_main, wait_until

KILLS = int(os.environ.get("SLUICE_KILLS", "6"))
SEED = int(os.environ.get("TEST_SEED", "1"))
NUM_CLIENTS = int(os.environ.get("SLUICE_CLIENTS", "8"))
UNSENT_MAX = 100  # tokens of one write of one stream, as in test_gateway_death.py
PRICES = {"price_input": 3, "price_output": 7}
BOOT_ID_AT = 16  # shared/PROTOCOL.md


def bearer(key):
    return {"Authorization": "Bearer " + key}


def tenant(name, **limits):
    digest = hashlib.sha256(f"sk-{name}".encode()).hexdigest()
    return {"name": name, "keys": [{"name": "only", "sha256": digest}], "limits": limits}


def completion(max_tokens, **changes):
    return {"model": "canned", "prompt": "river", "max_tokens": max_tokens, "ignore_eos": True, **changes}


class Usage:
    """Sums of the store's tables."""

    def __init__(self, server, table="usage_days", tenant_name=None):
        store = sqlite3.connect(f"file:{server.state_dir}/store.db?mode=ro", uri=True, timeout=10)
        try:
            self.rows = store.execute(
                "SELECT start, requests, prompt, output, cost "
                f"FROM {table} JOIN usage_accounts ON id = account "
                "WHERE ?1 IS NULL OR tenant = ?1", (tenant_name,)).fetchall()
        finally:
            store.close()
        self.requests, self.prompt, self.output, self.cost = (
            sum(row[i] for row in self.rows) for i in range(1, 5))


class Client(threading.Thread):
    """Streams one request after the other, whatever happens to the server."""

    def __init__(self, server, number, stopping):
        super().__init__(daemon=True)
        self.server, self.number, self.stopping = server, number, stopping
        self.rng = random.Random(SEED * 1000 + number)
        self.received = 0  # completion tokens that complete events told
        self.num_begun = self.num_cut = self.num_refused = 0
        self.codes = set()

    def run(self):
        while not self.stopping.is_set():
            try:
                self.stream_once()
            except (OSError, Closed):
                time.sleep(0.01)  # the server is between two lives

    def stream_once(self):
        body = completion(self.rng.randint(5, 60), seed=self.number,
                          stream_options={"include_usage": True, "continuous_usage_stats": True})
        stream = Stream(self.server.port, "/v1/completions", body, bearer("sk-metered"))
        tokens = 0
        try:
            stream.open()
            if stream.status != 200:
                self.num_refused += stream.status == 429
                b"".join(stream.connection.body_pieces(stream.headers))
                self.codes.add(stream.status)
                self.stopping.wait(0.05)
                return
            for event in stream.events():
                if tokens == 0:
                    self.num_begun += 1
                tokens = event["usage"]["completion_tokens"]
        except Closed:
            pass
        finally:
            self.received += tokens
            self.num_cut += stream.status == 200 and not stream.is_done
            stream.close()


class Books(unittest.TestCase):
    def run(self, result=None):
        num_bad = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > num_bad:
            print("\n".join(["---- server log"] + list(self.server.log)[-40:]))

    def start(self, **changes):
        changes = {"models": [canned_model(canned_step_us=1000, **PRICES)],
                   "supervision": {"restart_delay": "5ms", "restart_delay_max": "20ms"}, **changes}
        self.server = SluiceServer(config_with(**changes))
        self.addCleanup(self.server.close)
        self.server.start()
        def find():
            return re.search(r"sk-sluice-admin-[0-9a-f-]+", "\n".join(self.server.log))
        self.admin_key = wait_until(find, "the first admin key").group(0)

    def post(self, key, body):
        return self.server.post("/v1/completions", body, bearer(key))

    def admin(self, method, path, body=None):
        return self.server.request(method, "/admin/v1" + path, body, bearer(self.admin_key))

    def quota_state(self, name):
        return self.admin("GET", f"/tenants/{name}/quota").json()["state"]

    def wait_until_ready(self):
        def is_ready():
            try:
                return self.server.request("GET", "/ready").status == 200
            except (OSError, Closed):
                return False
        wait_until(is_ready, "a ready gateway")

    def wait_until_settled(self):
        wait_until(lambda: self.server.metric("sluice_store_usage_waiting") == 0
                   and self.server.metric("sluice_journal_live_slots") == 0, "the disk")

    def kill(self, victim):
        if victim == "gateway":
            gateway = self.server.gateway_pid()
            num_ready = self.server.num_gateways_ready
            os.kill(gateway, signal.SIGKILL)
            wait_until(lambda: self.server.num_gateways_ready > num_ready, "the next gateway")
        elif victim == "worker":
            worker = self.server.worker_pids()[0]
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: self.server.worker_pids() not in ([], [worker]), "the next worker")
        else:
            self.kill_parent()
            self.server.start()
        self.wait_until_ready()

    def kill_parent(self):
        children = children_of(self.server.process.pid)
        self.server.signal(signal.SIGKILL)
        self.server.process.wait()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children),
                   "the children to follow")

    def check_books(self, name="metered"):
        """journal = usage = ledger, nothing open; the usage."""
        self.wait_until_settled()
        journal, usage = self.server.journal(), Usage(self.server)
        self.assertEqual(journal.live, 0)
        self.assertEqual((usage.requests, usage.prompt, usage.output),
                         (journal.requests, journal.prompt, journal.accepted))
        self.assertEqual(self.server.metric("sluice_journal_accepted_tokens_total"), usage.output)
        total = self.admin("GET", "/usage").json()["total"]
        self.assertEqual((total["requests"], total["input_tokens"], total["output_tokens"]),
                         (usage.requests, usage.prompt, usage.output))
        own = Usage(self.server, tenant_name=name)
        self.assertEqual(own.cost, own.prompt * PRICES["price_input"]
                         + own.output * PRICES["price_output"])
        state = self.quota_state(name)
        self.assertEqual(state["tokens_per_day"]["used"], own.prompt + own.output)
        self.assertEqual(state["monthly_budget"]["used"], own.cost)
        self.assertEqual(state["concurrent_requests"]["used"], 0)
        self.assertEqual(state["concurrent_kv_tokens"]["used"], 0)
        return own

    def test_killed_again_and_again_under_load(self):
        limit = 1000 * max(KILLS, 3)
        rng = random.Random(SEED)
        self.start(models=[canned_model(canned_step_us=5000, **PRICES)],
                   tenants=[tenant("metered", tokens_per_minute=limit, tokens_per_day=10**9,
                                   monthly_budget=10**12, concurrent_requests=1000,
                                   concurrent_kv_tokens=10**9)])
        stopping = threading.Event()
        clients = [Client(self.server, i, stopping) for i in range(NUM_CLIENTS)]
        seconds = {}  # what was admitted in each second, over all samples: rows are kept two minutes
        def sample():
            for start, _requests, prompt, output, _cost in Usage(self.server, "usage_seconds").rows:
                seconds[start] = max(seconds.get(start, 0), prompt + output)
        for client in clients:
            client.start()
        for number in range(KILLS):
            time.sleep(rng.uniform(0.02, 0.3))
            victim = {2: "worker", 4: "parent"}.get(number % 6, "gateway")
            with self.subTest(number=number, victim=victim):
                self.kill(victim)
            sample()
        wait_until(lambda: all(client.num_refused > 0 for client in clients), "the limit")
        self.kill("gateway")  # the minute is still full
        self.assertEqual(self.post("sk-metered", completion(1000)).status, 429)
        stopping.set()
        for client in clients:
            client.join()
        usage = self.check_books()
        sample()
        for start in seconds:
            in_a_minute = sum(tokens for at, tokens in seconds.items() if start <= at < start + 60)
            self.assertLessEqual(in_a_minute, limit)
        received, num_cut = sum(c.received for c in clients), sum(c.num_cut for c in clients)
        self.assertGreaterEqual(usage.output, received, "received more than was billed")
        self.assertLessEqual(usage.output, received + num_cut * UNSENT_MAX)
        self.assertGreaterEqual(usage.requests, sum(c.num_begun for c in clients))
        self.assertGreater(usage.prompt + usage.output, limit // 2, "the limit was hardly used")
        self.assertLessEqual(set().union(*(c.codes for c in clients)), {429, 503})
        print(f"kills={KILLS + 1} limit={limit} billed={usage.prompt + usage.output} "
              f"output={usage.output} received={received} cut={num_cut} requests={usage.requests}")

    def test_days_and_months_go_on_after_a_restart_of_everything(self):
        self.start(tenants=[tenant("metered", tokens_per_day=1000, monthly_budget=2000)])
        self.assertEqual(self.admin("POST", "/tenants", {"id": "made"}).status, 201)
        self.admin("PUT", "/tenants/made/quota", {"tokens_per_day": 100})
        made_key = self.admin("POST", "/tenants/made/keys", {"name": "app"}).json()["key"]
        prompt = self.post("sk-metered", completion(50)).json()["usage"]["prompt_tokens"]
        self.assertEqual(self.post(made_key, completion(60)).status, 200)
        before = self.check_books()
        self.assertEqual(before.prompt + before.output, prompt + 50)
        report = self.admin("GET", "/tenants/made/usage?period=month&group_by=key,model&format=csv")
        self.assertEqual(report.headers["content-type"], "text/csv; charset=utf-8")
        head, row = report.text.splitlines()
        self.assertEqual(head, "start,key,model,requests,input_tokens,cached_tokens,output_tokens,cost,"
                         "kv_token_seconds,device_seconds")
        public_id = self.admin("GET", "/tenants/made/keys").json()["data"][0]["id"]
        self.assertEqual(row.split(",")[1:6], [f'"{public_id}"', '"canned"', "1", str(prompt), "0"])
        kv_token_seconds, device_seconds = (float(number) for number in row.split(",")[8:])
        self.assertGreater(kv_token_seconds, 0)
        self.assertLess(kv_token_seconds, (prompt + 60) * 30)
        self.assertLess(device_seconds, 30)
        self.assertEqual(self.admin("GET", "/usage?limit=0").status, 400)
        self.assertEqual(self.server.request("GET", "/admin/v1/usage", headers=bearer(made_key)).status, 403)
        def drain():
            self.server.signal(signal.SIGTERM)
            self.assertEqual(self.server.wait(), 0)
            self.assertEqual(self.server.journal().live, 0, "a clean end leaves nothing to recover")
        for restart in (drain, self.kill_parent):
            restart()
            self.server.start()
            self.assertEqual(self.check_books().cost, before.cost)
            self.assertEqual(self.quota_state("made")["tokens_per_day"]["used"], prompt + 60)
            over = 100 - 2 * prompt - 60 + 1
            refused = self.post(made_key, completion(over))
            self.assertEqual(refused.status, 429, refused.text)
            left = (2000 - before.cost - 3 * prompt) // 7
            refused = self.post("sk-metered", completion(left + 1))
            self.assertEqual(refused.json()["error"]["code"], "insufficient_quota", refused.text)
        self.assertEqual(self.post(made_key, completion(over - 1)).status, 200)
        self.assertEqual(self.post("sk-metered", completion(left)).status, 200)

    def test_a_power_loss_charges_what_was_reserved(self):
        self.start(tenants=[tenant("metered", tokens_per_day=10_000)])
        done = self.post("sk-metered", completion(20)).json()["usage"]
        self.wait_until_settled()
        stream = Stream(self.server.port, "/v1/completions", completion(3000), bearer("sk-metered"))
        next(stream.events())
        # All at once: a gateway that lives to see its parent's end would settle the stream.
        gateway = self.server.gateway_pid()
        self.server.signal(signal.SIGSTOP)
        os.kill(gateway, signal.SIGKILL)
        self.kill_parent()
        stream.close()
        with open(self.server.state_dir / "journal", "r+b") as journal:
            journal.seek(BOOT_ID_AT)
            journal.write(b"another boot id.")
        self.server.start()
        usage = Usage(self.server)
        self.assertEqual(usage.output, 20 + 3000)
        self.assertEqual(usage.prompt, 2 * done["prompt_tokens"])
        self.assertEqual(self.quota_state("metered")["tokens_per_day"]["used"], usage.prompt + usage.output)
        self.assertTrue(any("power_lost=true" in line for line in self.server.log))
        self.assertEqual(self.server.journal().live, 0)

    def test_a_full_disk_fails_closed_and_recovers(self):
        self.start(tenants=[tenant("metered", tokens_per_day=10_000), tenant("free")])
        # A gateway makes the worker's rings after it listens, and those are files too.
        wait_until(lambda: self.server.request("GET", "/ready").status == 200, "the worker")
        gateway = self.server.gateway_pid()
        _, hard = resource.prlimit(gateway, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway, resource.RLIMIT_FSIZE, (4096, hard))
        self.assertEqual(self.post("sk-metered", completion(20)).status, 200)
        wait_until(lambda: self.server.metric("sluice_store_failing") == 1, "the failure")
        refused = self.post("sk-metered", completion(20))
        self.assertEqual(refused.status, 503, refused.text)
        self.assertEqual(refused.json()["error"]["code"], "quota_store_unavailable")
        self.assertIn("retry-after", refused.headers)
        self.assertEqual(self.post("sk-free", completion(20)).status, 200)
        self.assertEqual(self.server.request("GET", "/ready").json()["usage_store"], "failing")
        self.assertTrue(any("event=usage_store_failing" in line for line in self.server.log))
        self.assertGreater(self.server.metric("sluice_store_refused_total"), 0)
        resource.prlimit(gateway, resource.RLIMIT_FSIZE, (hard, hard))
        wait_until(lambda: self.server.metric("sluice_store_failing") == 0, "the recovery")
        self.assertEqual(self.post("sk-metered", completion(20)).status, 200)
        self.assertEqual(self.server.request("GET", "/ready").json()["usage_store"], "storing")
        wait_until(lambda: any("event=usage_store_recovered" in line for line in self.server.log), "the line")
        self.assertEqual(self.check_books().output, 40)
        self.assertEqual(Usage(self.server).output, 60)
        self.assertEqual(self.server.gateway_pid(), gateway)


if __name__ == "__main__":
    run_main()
