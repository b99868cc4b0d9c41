"""Start, reload, drain and stop of real processes, and starts that must be refused with words that
help."""
import contextlib
import hashlib
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest

import http_client
from http_client import Closed, Connection, collect, encode_request
from sluice_process import (BIN, SluiceServer, canned_model, config_with, is_alive, run_main, wait_until)

KEYS = ["sk-test-first", "sk-test-second"]
COMPLETION = {"model": "canned", "prompt": "a", "max_tokens": 2, "ignore_eos": True}


def with_keys(keys, **limits):
    return [{"name": "team", "limits": limits, "keys": [
        {"name": f"key-{i}", "sha256": hashlib.sha256(key.encode()).hexdigest()}
        for i, key in enumerate(keys)]}]


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@contextlib.contextmanager
def refused(test, config=None, text=None, config_path=None, code=1):
    """Starts a server that must end by itself; yields its words. 78: only another configuration helps, so
    that systemd does not start it again."""
    server = SluiceServer(config)
    if text is not None:
        server.config_path.write_text(text)
    server.config_path = config_path or server.config_path
    server.spawn()
    try:
        try:
            ended = server.wait(20)
        except subprocess.TimeoutExpired:
            test.fail("it started: " + "\n".join(server.log))
        wait_until(lambda: server.lines.qsize() > 0, "the end of the output")
        output = "\n".join(server.log)
        test.assertEqual(ended, code, output)
        yield output
    finally:
        server.kill()
        server.close()


class Stop(unittest.TestCase):
    slow = config_with(models=[canned_model(canned_step_us=20_000)])

    def stream_in_background(self, server, tokens):
        result = {}
        begun = threading.Event()
        def run():
            result["stream"] = collect(server.port, "/v1/completions",
                                       {**COMPLETION, "max_tokens": tokens},
                                       on_event=lambda _: begun.set())
            begun.set()
        thread = threading.Thread(target=run)
        thread.start()
        self.assertTrue(begun.wait(30))
        return thread, result

    def test_sigterm_lets_a_running_stream_finish_and_takes_no_new(self):
        with SluiceServer(self.slow) as server:
            kept = Connection(server.port)
            kept.send(encode_request("GET", "/live"))
            self.assertEqual(kept.read_response().status, 200)
            thread, result = self.stream_in_background(server, 60)
            server.signal(signal.SIGTERM)
            def turned_away():
                try:
                    answer = server.request("POST", "/v1/completions", COMPLETION)
                except (OSError, Closed):
                    return True
                if answer.status == 503:
                    self.assertIn("retry-after", answer.headers)
                    return True
                return False
            wait_until(turned_away, "new requests to be refused")
            self.assertTrue(kept.is_closed_by_server())
            thread.join()
            self.assertTrue(result["stream"].is_done)
            self.assertEqual(result["stream"].usage["completion_tokens"], 60)
            self.assertEqual(server.wait(), 0)
            wait_until(lambda: 'child="worker 0" epoch=1 how="exit code 0"' in "\n".join(server.log),
                       "the worker's own end in the log")

    def test_a_second_sigterm_stops_at_once(self):
        with SluiceServer(self.slow) as server:
            children = [server.gateway_pid(), *server.worker_pids()]
            thread, result = self.stream_in_background(server, 3000)
            server.signal(signal.SIGTERM)
            wait_until(lambda: self.is_refused(server), "the drain to begin")
            server.signal(signal.SIGTERM)
            self.assertEqual(server.wait(5), 128 + signal.SIGTERM)
            thread.join()
            self.assertFalse(result["stream"].is_done)
            wait_until(lambda: not any(map(is_alive, children)), "the children to end")

    def is_refused(self, server):
        try:
            return server.request("POST", "/v1/completions", COMPLETION).status == 503
        except (OSError, Closed):
            return True

    def test_the_drain_has_a_limit(self):
        config = config_with(models=[canned_model(canned_step_us=20_000)],
                             queue={"drain_timeout": "200ms"})
        with SluiceServer(config) as server:
            thread, result = self.stream_in_background(server, 3000)
            server.signal(signal.SIGINT)
            server.wait(15)
            thread.join()
            self.assertFalse(result["stream"].is_done)

    def test_no_process_outlives_a_killed_parent(self):
        with SluiceServer() as server:
            children = [server.gateway_pid(), *server.worker_pids()]
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
            wait_until(lambda: not any(map(is_alive, children)), "the children to end")


class RefusedStarts(unittest.TestCase):
    def test_a_second_instance_on_the_same_state(self):
        with SluiceServer() as first:
            with refused(self, config_with(state_dir=str(first.state_dir))) as output:
                self.assertIn("another sluice", output)
                self.assertIn(str(first.process.pid), output)
            self.assertEqual(first.request("GET", "/live").status, 200)

    def test_a_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with refused(self, config_with(listen={"port": port})) as output:
                self.assertIn(str(port), output)
                self.assertRegex(output.lower(), "in use")

    def test_a_missing_model(self):
        with refused(self, config_with(models=[canned_model(path="/nowhere/model")]), code=78) as output:
            self.assertIn("models[0].path: '/nowhere/model': No such file", output)

    def test_a_bad_configuration_names_line_key_and_range(self):
        rows = [
            ("listen:\n  port: 70000\n", [":2:", "listen.port", "0..65535"]),
            ("listen:\n  prot: 1\n", [":2:", "prot", "unknown"]),
            ("http:\n  header_timeout: 10\n", [":2:", "http.header_timeout", "100ms..10m"]),
            ("models:\n  - name: a\n    workers: 0\n", [":3:", "workers", "1..64"]),
            ("log_level: loud\n", [":1:", "log_level", "debug"]),
            ("listen: [\n", ["YAML"]),
            ("listen:\n  address: 0.0.0.0\n", ["key"]),
        ]
        for text, words in rows:
            with self.subTest(text=text), refused(self, text=text, code=78) as output:
                for word in words:
                    self.assertIn(word, output)
        with refused(self, config_path="/nowhere.yaml", code=78) as output:
            self.assertIn("/nowhere.yaml", output)

    def test_check_config_says_the_same(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("queue:\n  requests_max: 0\n")
            file.flush()
            run = subprocess.run([BIN / "sluice", "check-config", file.name], capture_output=True,
                                 text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn(f"{file.name}:2: queue.requests_max", run.stderr)

    def test_a_worker_that_cannot_start_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "tokenizer.model").write_bytes(b"not a model")
            with refused(self, config_with(models=[canned_model(path=folder)])) as output:
                self.assertIn("tokenizer.model", output)

    def test_a_full_disk_under_the_journal(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a small file system needs root")
        with tempfile.TemporaryDirectory() as folder:
            mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder],
                                     capture_output=True, text=True, check=False)
            if mounted.returncode != 0:
                self.skipTest("no mount here: " + mounted.stderr.strip())
            try:
                with refused(self, config_with(state_dir=folder)) as output:
                    self.assertRegex(output, "(?i)no space|disk.*full|full")
                # A journal that fits, on a disk that fills up later: its blocks are there already.
                config = config_with(state_dir=folder, journal_slots=512)
                with SluiceServer(config) as server:
                    with contextlib.suppress(OSError), open(folder + "/filler", "wb") as filler:
                        while True:
                            filler.write(bytes(4096))
                            filler.flush()
                    answer = server.post("/v1/completions", COMPLETION)
                    self.assertEqual(answer.status, 200, answer.text)
                    journal = server.journal()
                    self.assertEqual(journal.accepted + journal.live_accepted, 2)
                    # What was used waits in the journal until there is room.
                    wait_until(lambda: server.metric("sluice_store_failing") == 1, "the failure")
                    os.unlink(folder + "/filler")
                    wait_until(lambda: server.metric("sluice_store_failing") == 0, "the recovery")
                    self.assertEqual(server.metric("sluice_store_usage_entries_total"), 1)
                    # The decision loop hears of the write a moment after the store has counted it.
                    wait_until(lambda: server.metric("sluice_journal_settled_slots") == 0, "the slots")
            finally:
                subprocess.run(["umount", "-l", folder], check=False)


class Reload(unittest.TestCase):
    def test_sighup_takes_new_keys_and_a_bad_file_changes_nothing(self):
        with SluiceServer(config_with(tenants=with_keys(KEYS[:1]))) as server:
            def status(key):
                return server.post("/v1/completions", COMPLETION, bearer(key)).status
            self.assertEqual([status(k) for k in KEYS], [200, 401])
            refusal = server.post("/v1/completions", COMPLETION)
            self.assertEqual(refusal.status, 401)
            self.assertEqual(refusal.json()["error"]["code"], "invalid_api_key")
            self.assertEqual(refusal.headers["www-authenticate"], "Bearer")

            server.write_config(config_with(tenants=with_keys(KEYS[1:])))
            server.signal(signal.SIGHUP)
            wait_until(lambda: status(KEYS[1]) == 200, "the new key")
            self.assertEqual(status(KEYS[0]), 401)

            server.config_path.write_text("tenants: 7\n")
            server.signal(signal.SIGHUP)
            wait_until(lambda: any("reload_refused" in line for line in server.log), "the refusal")
            self.assertEqual([status(k) for k in KEYS], [401, 200])
            self.assertNotIn(KEYS[1], "\n".join(server.log))

    def test_a_revoked_key_ends_its_running_requests_and_no_others(self):
        models = [canned_model(canned_step_us=20_000)]
        with SluiceServer(config_with(models=models, tenants=with_keys(KEYS))) as server:
            results = {}
            def run(name, key, streamed):
                body = {**COMPLETION, "max_tokens": 200}
                results[name] = (collect(server.port, "/v1/completions", body, bearer(key)) if streamed
                                 else server.post("/v1/completions", body, bearer(key)))
            threads = [threading.Thread(target=run, args=arguments) for arguments in
                       [("revoked", KEYS[0], True), ("whole", KEYS[0], False), ("kept", KEYS[1], True),
                        ("also kept", KEYS[1], False)]]
            for thread in threads:
                thread.start()
            wait_until(lambda: server.metric("vllm:num_requests_running", model_name="canned") == 4, "all four to run")
            server.write_config(config_with(models=models, tenants=with_keys(KEYS[1:])))
            server.signal(signal.SIGHUP)
            for thread in threads:
                thread.join()
            self.assertEqual(results["revoked"].error["code"], "invalid_api_key")
            self.assertFalse(results["revoked"].is_done)
            self.assertEqual(results["whole"].status, 401)
            self.assertEqual(results["whole"].json()["error"]["code"], "invalid_api_key")
            self.assertTrue(results["kept"].is_done)
            self.assertEqual(results["kept"].usage["completion_tokens"], 200)
            self.assertEqual(results["also kept"].json()["usage"]["completion_tokens"], 200)
            wait_until(lambda: server.journal().live == 0, "the slots to be free")

    def test_a_lowered_limit_ends_running_streams_and_a_key_has_its_own(self):
        def config(tokens_per_minute):
            tenant = with_keys(KEYS[:2], tokens_per_minute=tokens_per_minute)
            tenant[0]["keys"][1]["limits"] = {"tokens_per_minute": 50}
            return config_with(models=[canned_model(canned_step_us=5_000)], tenants=tenant)
        long = {**COMPLETION, "max_tokens": 2000, "ignore_eos": True, "stream": True}
        with SluiceServer(config(10_000)) as server:
            never = server.post("/v1/completions", {**COMPLETION, "max_tokens": 60}, bearer(KEYS[1]))
            self.assertEqual(never.json()["error"]["code"], "request_exceeds_quota_capacity")
            self.assertNotIn("retry-after", never.headers)
            self.assertEqual(never.headers["x-ratelimit-limit-tokens"], "50")
            result = {}
            def run():
                result["stream"] = collect(server.port, "/v1/completions", long, bearer(KEYS[0]))
            thread = threading.Thread(target=run)
            thread.start()
            wait_until(lambda: server.metric("vllm:num_requests_running", model_name="canned") == 1, "it to run")
            server.write_config(config(100))
            server.signal(signal.SIGHUP)
            thread.join()
            self.assertEqual(result["stream"].error["code"], "rate_limit_exceeded")
            self.assertFalse(result["stream"].is_done)
            wait_until(lambda: server.journal().live == 0, "the slot to be free")

    def test_limits_answer_429_with_a_truthful_retry_after(self):
        config = config_with(tenants=with_keys(KEYS[:1], requests_per_minute=60))
        with SluiceServer(config) as server:
            def post():
                return server.post("/v1/completions", {**COMPLETION, "max_tokens": 1}, bearer(KEYS[0]))
            answers = [post() for _ in range(70)]
            limited = [a for a in answers if a.status == 429]
            self.assertTrue(limited)
            self.assertEqual(limited[0].json()["error"]["code"], "rate_limit_exceeded")
            self.assertEqual(answers[0].headers["x-ratelimit-limit-requests"], "60")
            wait_ms = int(limited[-1].headers["retry-after-ms"])
            self.assertLessEqual(wait_ms, 1000 * int(limited[-1].headers["retry-after"]))
            # The window is exactly a minute of whole seconds: the first request is forgotten after it.
            self.assertTrue(50_000 < wait_ms <= 61_000, wait_ms)


class Tls(unittest.TestCase):
    def test_a_self_signed_certificate(self):
        with tempfile.TemporaryDirectory() as folder:
            key, certificate = folder + "/key.pem", folder + "/cert.pem"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                            "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out",
                            certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
                            "subjectAltName=DNS:localhost"], check=True, capture_output=True)
            config = config_with(listen={"tls_certificate": certificate, "tls_key": key})
            with SluiceServer(config) as server:
                self.assertIn("https://", server.ready_line)
                tls = ssl.create_default_context(cafile=certificate)
                answer = http_client.request(server.port, "POST", "/v1/completions", COMPLETION, tls=tls)
                self.assertEqual(answer.status, 200)
                stream = collect(server.port, "/v1/completions", {**COMPLETION, "max_tokens": 30},
                                 tls=tls)
                self.assertEqual(stream.usage["completion_tokens"], 30)
                self.assertTrue(stream.is_done)
                with Connection(server.port) as plain:
                    plain.send(encode_request("GET", "/live"))
                    self.assertNotIn(b" 200 ", plain.read_to_end())
                tls.minimum_version = ssl.TLSVersion.TLSv1
                tls.maximum_version = ssl.TLSVersion.TLSv1_1
                with self.assertRaises((ssl.SSLError, OSError)):
                    Connection(server.port, tls=tls)
                self.assertEqual(server.request("GET", "/live", tls=ssl.create_default_context(
                    cafile=certificate)).status, 200)

    def test_half_a_pair_is_refused(self):
        with refused(self, config_with(listen={"tls_certificate": "/etc/hostname"}), code=78) as output:
            self.assertIn("tls_key", output)


if __name__ == "__main__":
    sys.exit(run_main())
