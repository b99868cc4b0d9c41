"""Tenants, quotas and keys over REST on a real gateway: who may, what acts at once on running
streams, and what is there after kill -9."""
import os
import re
import signal
import time

from http_client import Closed, Stream
from sluice_process import ServerTest, SluiceServer, canned_model, config_with, run_main, wait_until

COMPLETION = {"model": "canned", "prompt": "tell me", "max_tokens": 2000, "ignore_eos": True}


def bearer(key):
    return {"Authorization": "Bearer " + key}


class Admin(ServerTest):
    config = config_with(models=[canned_model(canned_step_us=5000)])

    def setUp(self):
        self.server = SluiceServer(self.config).start()
        self.addCleanup(self.server.close)
        def find():
            return re.search(r"sk-sluice-admin-[0-9a-f-]+", "\n".join(self.server.log))
        self.admin_key = wait_until(find, "the first admin key").group(0)

    def admin(self, method, path, body=None, key=None, headers=None):
        return self.server.request(method, "/admin/v1" + path, body,
                                   {**bearer(key or self.admin_key), **(headers or {})})

    def make_key(self, tenant="acme", **fields):
        answer = self.admin("POST", f"/tenants/{tenant}/keys", {"name": "app", **fields})
        self.assertEqual(answer.status, 201, answer.text)
        return answer.json()

    def stream_until_it_ends(self, key, act):
        """Starts a long stream, acts once it runs; the seconds from the act to the end, and the end."""
        stream = Stream(self.server.port, "/v1/completions", COMPLETION, bearer(key))
        acted = None
        try:
            for event in stream.events():
                if acted is None:
                    act()
                    acted = time.monotonic()
                stream.error = event.get("error") or stream.error
        except Closed:
            pass  # an error event is followed by the close, without an end mark
        return time.monotonic() - acted, stream

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
        seconds, stream = self.stream_until_it_ends(
            key["key"], lambda: self.assertEqual(
                self.admin("DELETE", "/keys/" + key["id"]).status, 200))
        self.assertEqual(stream.error["code"], "invalid_api_key")
        self.assertLess(seconds, 1)
        self.assertFalse(stream.is_done)
        second = self.make_key()
        _, stream = self.stream_until_it_ends(
            second["key"], lambda: self.admin("PATCH", "/tenants/acme", {"is_blocked": True}))
        self.assertEqual(stream.error["code"], "invalid_api_key")

    def test_a_lowered_quota_acts_on_a_running_stream(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        key = self.make_key()["key"]
        _, stream = self.stream_until_it_ends(
            key, lambda: self.admin("PATCH", "/tenants/acme/quota", {"tokens_per_minute": 10}))
        self.assertIsNotNone(stream.error)
        quota = self.admin("GET", "/tenants/acme/quota").json()
        self.assertEqual(quota["limits"]["tokens_per_minute"], 10)
        self.assertGreater(quota["state"]["tokens_per_minute"]["used"], 0)
        refused = self.server.request("POST", "/v1/completions", {**COMPLETION, "max_tokens": 100},
                                      bearer(key))
        self.assert_error(refused, 429, "request_exceeds_quota_capacity")

    def test_what_was_answered_survives_kill_9(self):
        self.admin("POST", "/tenants", {"id": "acme"})
        self.admin("PUT", "/tenants/acme/quota", {"requests_per_minute": 77})
        key = self.make_key()["key"]
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
        actions = [row["action"] for row in self.admin("GET", "/audit").json()["data"]]
        self.assertEqual(actions, ["key.create", "quota.update", "tenant.create"])
        self.assertNotIn(key, "\n".join(self.server.log))
        self.assertEqual("\n".join(self.server.log).count(self.admin_key), 1)


if __name__ == "__main__":
    run_main()
