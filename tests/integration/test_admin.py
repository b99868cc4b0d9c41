"""The REST surface on a real gateway: who may, what acts at once on running streams, what is there after
kill -9, and that every answer is what the served OpenAPI document says."""
import os
import re
import signal
import time

import openapi
from http_client import Closed, Stream, collect
from sluice_process import ServerTest, SluiceServer, canned_model, config_with, run_main, wait_until

COMPLETION = {"model": "canned", "prompt": "tell me", "max_tokens": 2000, "ignore_eos": True}


def bearer(key):
    return {"Authorization": "Bearer " + key}


class Admin(ServerTest):
    # A worker that is recycled gives what it runs so long.
    config = config_with(models=[canned_model(canned_step_us=5000)], queue={"drain_timeout": "300ms"})

    def setUp(self):
        self.server = SluiceServer(self.config).start()
        self.addCleanup(self.server.close)
        def find():
            return re.search(r"sk-sluice-admin-[0-9a-f-]+", "\n".join(self.server.log))
        self.admin_key = wait_until(find, "the first admin key").group(0)
        self.document = openapi.Document(self.server.request("GET", "/openapi.json").text)

    def request(self, method, path, body=None, headers=None):
        """A request whose answer must be the documented one."""
        answer = self.server.request(method, path, body, headers)
        self.document.check(method, path, answer, body)
        return answer

    def admin(self, method, path, body=None, key=None, headers=None):
        return self.request(method, "/admin/v1" + path, body,
                            {**bearer(key or self.admin_key), **(headers or {})})

    def make_key(self, tenant="acme", **fields):
        answer = self.admin("POST", f"/tenants/{tenant}/keys", {"name": "app", **fields})
        self.assertEqual(answer.status, 201, answer.text)
        return answer.json()

    def stream_until_it_ends(self, key, act):
        """Starts a long stream, acts once it runs; the tokens that were still accepted behind the act's answer,
        and the end."""
        stream = Stream(self.server.port, "/v1/completions", COMPLETION, bearer(key))
        acted = None
        try:
            for event in stream.events():
                if acted is None:
                    act()
                    acted = self.server.metric("vllm:generation_tokens_total")
                stream.error = event.get("error") or stream.error
        except Closed:
            pass  # an error event is followed by the close, without an end mark
        return self.server.metric("vllm:generation_tokens_total") - acted, stream

    def test_who_may(self):
        self.assertEqual(self.admin("POST", "/tenants", {"id": "acme"}).status, 201)
        key = self.make_key()
        self.assert_error(self.admin("GET", "/tenants", key=key["key"]), 403, "admin_required")
        self.assert_error(self.server.request("GET", "/admin/v1/tenants"), 401, "invalid_api_key")
        self.assert_error(self.admin("GET", "/tenants", key="sk-x"), 401, "invalid_api_key")
        self.assert_error(self.server.request("GET", "/v1/models"), 401, "invalid_api_key")
        self.assertEqual(self.server.request("GET", "/v1/models", headers=bearer(key["key"])).status,
                         200)
        self.assert_error(self.admin("GET", "/nothing"), 404, "not_found")
        preflight = self.server.request("OPTIONS", "/admin/v1/tenants/acme", headers={
            "Origin": "http://localhost:3000", "Access-Control-Request-Method": "PATCH"})
        self.assertEqual(preflight.status, 204)
        self.assertIn("PATCH", preflight.headers["access-control-allow-methods"])
        self.assertEqual(preflight.headers["allow"], "GET, HEAD, PATCH, DELETE, OPTIONS")
        wrong = self.admin("DELETE", "/tenants")
        self.assert_error(wrong, 405, "method_not_allowed")
        self.assertIn("POST", wrong.headers["allow"])
        self.assert_error(self.admin("POST", "/tenants", {"id": "acme"}), 409, "already_exists")
        stale = self.admin("PATCH", "/tenants/acme", {"is_blocked": False},
                           headers={"If-Match": '"7"'})
        self.assert_error(stale, 412, "precondition_failed")
        big = self.admin("POST", "/tenants", b" " * 10_000_000)
        self.assert_error(big, 413, "request_too_large")

    def test_a_revoked_key_and_a_blocked_tenant_stop_their_streams(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        key = self.make_key()
        tokens, stream = self.stream_until_it_ends(
            key["key"], lambda: self.assertEqual(
                self.admin("DELETE", "/keys/" + key["id"]).status, 200))
        self.assertEqual(stream.error["code"], "invalid_api_key")
        self.assertLessEqual(tokens, 2)
        self.assertFalse(stream.is_done)
        second = self.make_key()
        _, stream = self.stream_until_it_ends(
            second["key"], lambda: self.admin("PATCH", "/tenants/acme", {"is_blocked": True}))
        self.assertEqual(stream.error["code"], "invalid_api_key")
        self.assertIn("blocked", stream.error["message"])
        refused = self.server.request("GET", "/v1/models", headers=bearer(second["key"]))
        self.assertIn("blocked", self.assert_error(refused, 401, "invalid_api_key")["message"])
        self.admin("PATCH", "/tenants/acme", {"is_blocked": False})
        self.assertEqual(self.server.request("GET", "/v1/models", headers=bearer(second["key"])).status, 200)

    def test_a_lowered_quota_acts_on_a_running_stream(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        key = self.make_key()["key"]
        tokens, stream = self.stream_until_it_ends(
            key, lambda: self.admin("PATCH", "/tenants/acme/quota", {"tokens_per_minute": 1}))
        self.assertIsNotNone(stream.error)
        self.assertLessEqual(tokens, 2)
        quota = self.admin("GET", "/tenants/acme/quota").json()
        self.assertEqual(quota["limits"]["tokens_per_minute"], 1)
        self.assertGreater(quota["state"]["tokens_per_minute"]["used"], 0)
        refused = self.server.request("POST", "/v1/completions", {**COMPLETION, "max_tokens": 100},
                                      bearer(key))
        self.assert_error(refused, 429, "request_exceeds_quota_capacity")
        # Where the new limit covers more than was sent, the stream goes on to its end, to the token.
        self.admin("POST", "/tenants", {"id": "shop"})
        key = self.admin("POST", "/tenants/shop/keys", {"name": "k"}).json()["key"]
        _, stream = self.stream_until_it_ends(
            key, lambda: self.admin("PATCH", "/tenants/shop/quota", {"tokens_per_minute": 120}))
        self.assertEqual(stream.error["code"], "rate_limit_exceeded")
        self.assertIn("lowered to 120", stream.error["message"])
        used = self.admin("GET", "/tenants/shop/quota").json()["state"]["tokens_per_minute"]
        self.assertEqual((used["used"], used["reserved"]), (120, 0))

    def test_quotas_of_parents_models_and_times(self):
        for tenant in ({"id": "group"}, {"id": "acme", "parent": "group", "name": "Acme & co."}):
            self.assertEqual(self.admin("POST", "/tenants", tenant).status, 201)
        key = self.make_key()["key"]
        def ask(tokens=5):
            return self.request("POST", "/v1/completions",
                                {"model": "canned", "prompt": "tell me", "max_tokens": tokens}, bearer(key))
        def quota():
            return self.request("GET", "/v1/quota", headers=bearer(key)).json()
        self.assertEqual(ask().status, 200)
        self.assertEqual(self.admin("PATCH", "/tenants/group/quota", {"requests_per_minute": 0}).status, 200)
        self.assert_error(ask(), 429, "request_exceeds_quota_capacity")
        self.assertEqual(quota()["requests_per_minute"]["limit"], 0, "the parent binds")
        self.assertEqual(self.admin("PUT", "/tenants/group/quota", {}).status, 200)
        self.assertEqual(ask().status, 200)
        self.assertIsNone(quota()["requests_per_minute"]["limit"])
        override = {"model_overrides": [{"model": "canned", "concurrent_requests": 0}]}
        self.assertEqual(self.admin("PATCH", "/tenants/acme/quota", override).status, 200)
        self.assertEqual(ask().status, 429)
        state = self.admin("GET", "/tenants/acme/quota").json()
        self.assertEqual(state["models"][0]["model"], "canned")
        self.assertEqual(state["models"][0]["state"]["concurrent_requests"]["limit"], 0)
        self.admin("PATCH", "/tenants/acme/quota", {"model_overrides": None})
        until = {"temporary_overrides": [{"until": int(time.time()) + 2, "tokens_per_minute": 0}]}
        self.assertEqual(self.admin("PATCH", "/tenants/acme/quota", until).status, 200)
        self.assertEqual(ask().status, 429)
        wait_until(lambda: ask().status == 200, "the override to end")
        self.admin("PATCH", "/tenants/acme/quota", {"tokens_per_minute": 1, "shadow": True})
        self.assertEqual(ask().status, 200, "shadow refuses nothing")
        self.assertGreater(self.admin("GET", "/tenants/acme/quota").json()["shadow_refusals"], 0)
        self.assert_error(self.admin("PATCH", "/tenants/group", {"parent": "acme"}), 400, "invalid_value",
                          "parent")
        self.assert_error(self.admin("DELETE", "/tenants/group"), 409, "conflict")

    def test_reserved_is_told_from_used(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        key = self.make_key()["key"]
        seen = {}
        def look():
            seen.update(self.admin("GET", "/tenants/acme/quota").json()["state"])
            self.admin("PATCH", "/tenants/acme", {"is_blocked": True})
        self.stream_until_it_ends(key, look)
        minute = seen["tokens_per_minute"]
        self.assertGreater(minute["used"], 0)
        self.assertGreater(minute["reserved"], 1900)
        self.assertEqual(seen["concurrent_requests"]["used"], 1)
        self.assertGreater(minute["reset_ms"], 0)
        self.assertEqual(self.admin("GET", "/tenants/acme/quota").json()["state"]["tokens_per_minute"]
                         ["reserved"], 0)

    def test_scopes(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        key = self.make_key(scopes=["model.read"])
        self.assertEqual(self.request("GET", "/v1/models", headers=bearer(key["key"])).status, 200)
        self.assertEqual(self.request("GET", "/v1/models/canned", headers=bearer(key["key"])).status, 200)
        for method, path, body in (("GET", "/v1/quota", None), ("POST", "/tokenize", {"prompt": "a"}),
                                   ("POST", "/v1/completions", COMPLETION)):
            self.assert_error(self.request(method, path, body, bearer(key["key"])), 403, "insufficient_scope")
        stale = {"If-Match": '"1"'}
        self.assert_error(self.admin("PATCH", "/keys/" + key["id"], {"scopes": None}, headers=stale), 412,
                          "precondition_failed")
        etag = {"If-Match": self.admin("GET", "/keys/" + key["id"]).headers["etag"]}
        self.assertEqual(self.admin("PATCH", "/keys/" + key["id"], {"scopes": None}, headers=etag).status, 200)
        self.assertEqual(self.request("GET", "/v1/quota", headers=bearer(key["key"])).status, 200)

    def test_every_operation_is_as_documented(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        once = {"Idempotency-Key": "first"}
        made = self.admin("POST", "/tenants/acme/keys", {"name": "app"}, headers=once)
        again = self.admin("POST", "/tenants/acme/keys", {"name": "app"}, headers=once)
        self.assertEqual(again.headers["idempotency-replayed"], "true")
        self.assertEqual((again.json()["id"], again.json()["key"]), (made.json()["id"], None))
        self.assert_error(self.admin("POST", "/tenants/acme/keys", {"name": "b"}, headers=once), 409,
                          "conflict")
        key = made.json()
        rotated = self.admin("POST", f"/keys/{key['id']}/rotate", {"overlap_seconds": 60}).json()
        caller = bearer(rotated["key"])
        chat = {"model": "canned", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        for method, path, body in (
                ("POST", "/v1/chat/completions", chat),
                ("POST", "/v1/completions", {"model": "canned", "prompt": "a", "max_tokens": 1}),
                ("POST", "/v1/chat/completions/input_tokens", chat), ("POST", "/v1/embeddings", {}),
                ("POST", "/tokenize", {"prompt": "a"}), ("POST", "/v1/tokenize", {"prompt": "a"}),
                ("POST", "/detokenize", {"tokens": [65]}), ("POST", "/v1/detokenize", {"tokens": [65]}),
                ("GET", "/v1/models", None), ("GET", "/v1/models/canned", None), ("GET", "/v1/quota", None),
                ("GET", "/live", None), ("GET", "/ready", None), ("GET", "/health", None),
                ("GET", "/metrics", None), ("GET", "/openapi.json", None)):
            self.request(method, path, body, caller)
        for path in ("/tenants", "/tenants/acme", "/tenants/acme/quota", "/tenants/acme/keys",
                     "/keys/" + key["id"], "/breakers", "/breakers/tenant:acme", "/breakers/worker:0",
                     "/workers", "/workers/0", "/audit", "/config", "/tenants?limit=1", "/usage",
                     "/usage?period=minute&format=csv", "/tenants/acme/usage?group_by=key,model"):
            self.assertEqual(self.admin("GET", path).status, 200, path)
            self.assertEqual(self.admin("HEAD", path).body, b"")
        for path in ("/breakers/tenant:acme/open", "/breakers/tenant:acme/reset", "/breakers/worker:0/open",
                     "/breakers/worker:0/reset", "/workers/0/drain", "/workers/0/resume",
                     "/workers/0/recycle"):
            self.assertEqual(self.admin("POST", path).status, 200, path)
        self.admin("PATCH", "/keys/" + key["id"], {"name": "other"})
        self.admin("PUT", "/tenants/acme/quota", {"tokens_per_day": 5})
        self.admin("PATCH", "/tenants/acme/quota", {"tokens_per_day": None})
        self.admin("PATCH", "/tenants/acme", {"weight": 3})
        self.admin("DELETE", "/keys/" + key["id"])
        self.admin("DELETE", "/tenants/acme")
        self.assertEqual(self.document.unseen, set())
        for path in ("/tenants/none", "/keys/none", "/breakers/tenant:none", "/workers/9", "/tenants/%zz",
                     "/tenants/none/quota"):
            self.assert_error(self.admin("GET", path), 404, "not_found")
        self.assertNotIn(key["key"][-64:], self.admin("GET", "/config").text)

    def test_a_recycled_worker_is_replaced_and_its_stream_goes_on(self):
        body = {**COMPLETION, "max_tokens": 200, "seed": 7}
        expected = self.server.request("POST", "/v1/completions", body).json()["choices"][0]["text"]
        before = self.admin("GET", "/workers/0").json()
        self.assertEqual(before["state"], "serving")
        pids, seen = self.server.worker_pids(), []
        def recycle_once(_event):
            if not seen:
                seen.append(self.admin("POST", "/workers/0/recycle").json())
        stream = collect(self.server.port, "/v1/completions", body, on_event=recycle_once)
        self.assertEqual(seen[0]["state"], "recycling")
        self.assertEqual(seen[0]["tenants"], ["default"])
        self.assertEqual(stream.texts[0], expected)
        after = self.admin("GET", "/workers/0").json()
        self.assertEqual(after["state"], "serving")
        self.assertGreater(after["epoch"], before["epoch"])
        self.assertNotEqual(self.server.worker_pids(), pids)
        actions = [row["action"] for row in self.admin("GET", "/audit").json()["data"]]
        self.assertEqual(actions, ["worker.recycle"])

    def test_bad_input_changes_nothing(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        self.admin("PATCH", "/tenants/acme/quota", {"tokens_per_minute": 777})
        before = self.admin("GET", "/tenants/acme/quota")
        for value in (-1, 1.5, 10**13, 2**63, "5", True, [5], 1e400):
            text = '{"requests_per_minute": 9, "tokens_per_minute": %s}' % repr(value).replace(
                "'", '"').replace("True", "true").replace("inf", "1e400")
            self.assertEqual(self.admin("PATCH", "/tenants/acme/quota", text).status, 400, text)
        for path, body in (("/tenants", '{"id": "b", "x": 1}'), ("/tenants", '{"id": "b"'),
                           ("/tenants", '{"id": "../b"}'), ("/tenants", '{"id": "b\\r\\nx: y"}'),
                           ("/tenants", '{"id": "b", "models": ["a", 5]}'),
                           ("/tenants/acme/keys", '{"name": "k", "limits": {"shadow": 5}}')):
            self.assertEqual(self.admin("POST", path, body).status, 400, body)
        self.assertEqual(self.admin("POST", "/tenants", b"{" + b" " * 70_000 + b"}").status, 413)
        after = self.admin("GET", "/tenants/acme/quota")
        self.assertEqual(after.json()["limits"], before.json()["limits"])
        self.assertEqual(after.headers["etag"], before.headers["etag"])
        self.assertEqual([t["id"] for t in self.admin("GET", "/tenants").json()["data"]], ["acme"])
        self.assertEqual(self.admin("GET", "/tenants/acme/keys").json()["data"], [])

    def test_rates_of_tokens_may_come_as_one_object(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        names = ("tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")

        def rates(method, body):
            answer = self.admin(method, "/tenants/acme/quota", body)
            self.assertEqual(answer.status, 200, answer.text)
            return tuple(answer.json()["limits"][name] for name in names)

        self.assertEqual(rates("PUT", {"tokens_per_minute": {"input": 5, "total": 9}}), (9, 5, None))
        self.assertEqual(rates("PATCH", {"tokens_per_minute": {"input": None, "output": 4}}), (9, None, 4))
        self.assertEqual(rates("PATCH", {"tokens_per_minute": 7, "input_tokens_per_minute": 6}), (7, 6, 4))
        for value, param in (({"in": 1}, "tokens_per_minute"), ({"total": -1}, "tokens_per_minute.total"),
                             ({"output": "1"}, "tokens_per_minute.output"),
                             ({"input": 1}, "tokens_per_minute.input")):
            body = {"tokens_per_minute": value, "input_tokens_per_minute": 3}
            refused = self.admin("PATCH", "/tenants/acme/quota", body)
            self.assertEqual((refused.status, refused.json()["error"]["param"]), (400, param), refused.text)
        self.assertEqual(rates("PATCH", {}), (7, 6, 4))

    def test_what_was_answered_survives_kill_9(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        self.admin("PUT", "/tenants/acme/quota", {"requests_per_minute": 77})
        key = self.make_key()["key"]
        self.admin("POST", "/breakers/tenant:acme/open")
        self.admin("POST", "/workers/0/drain")
        old = self.server.gateway_pid()
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: self.server.gateway_pid() not in (None, old), "another gateway")
        def is_back():
            try:
                return self.server.request("GET", "/v1/models", headers=bearer(key)).status == 200
            except OSError:
                return False
        wait_until(is_back, "the key to be valid again")
        quota = self.admin("GET", "/tenants/acme/quota").json()
        self.assertEqual(quota["limits"]["requests_per_minute"], 77)
        rows = [row for row in self.admin("GET", "/audit").json()["data"] if row["actor"] != "system"]
        self.assertEqual([row["action"] for row in rows],
                         ["worker.drain", "breaker.open", "key.create", "quota.update", "tenant.create"])
        wait_until(lambda: self.admin("GET", "/workers/0").json()["state"] == "draining",
                   "the worker, drained as before")
        breaker = self.admin("GET", "/breakers/tenant:acme").json()
        self.assertEqual((breaker["state"], breaker["is_forced"]), ("open", True))
        refused = self.server.request("POST", "/v1/completions", COMPLETION, headers=bearer(key))
        self.assert_error(refused, 429, "tenant_circuit_open")
        self.assertNotIn(key, "\n".join(self.server.log))
        self.assertEqual("\n".join(self.server.log).count(self.admin_key), 1)


if __name__ == "__main__":
    run_main()
