"""The commands that manage tenants, quotas and keys of a running gateway: what they print, as a table and as
JSON, their exit codes, and that no key is taken from an argument."""
import json
import os
import re
import subprocess
import tempfile
import unittest

from sluice_process import BIN, SluiceServer, canned_model, config_with, run_main, wait_until


def sluice(*arguments, environment=None):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return subprocess.run([BIN / "sluice", *arguments], capture_output=True, text=True, timeout=30,
                          env={**kept, **(environment or {})}, check=False)


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = SluiceServer(config_with(models=[canned_model()])).start()
        cls.addClassCleanup(cls.server.close)
        found = wait_until(lambda: re.search(r"sk-sluice-admin-[0-9a-f-]+", "\n".join(cls.server.log)),
                           "the admin key")
        cls.environment = {"SLUICE_URL": f"http://127.0.0.1:{cls.server.port}/",
                           "SLUICE_ADMIN_KEY": found.group(0)}

    def run_well(self, *arguments):
        done = sluice(*arguments, environment=self.environment)
        self.assertEqual(done.returncode, 0, (arguments, done.stderr))
        return done.stdout

    def run_badly(self, code, *arguments, environment=None):
        done = sluice(*arguments, environment=self.environment if environment is None else environment)
        self.assertEqual(done.returncode, code, (arguments, done.stdout, done.stderr))
        self.assertEqual(done.stdout, "")
        return done.stderr

    def test_a_tenant_from_its_making_to_its_end(self):
        made = self.run_well("tenant", "create", "acme", "weight=3", "models=canned", "name=007")
        self.assertRegex(made, r"(?m)^id +acme$")
        self.assertRegex(made, r"(?m)^name +007$")
        self.assertRegex(self.run_well("tenant", "list"), r"(?m)^id +name +parent.*\n(.*\n)*acme +007 +-")
        shown = json.loads(self.run_well("tenant", "show", "acme", "--json"))
        self.assertEqual((shown["weight"], shown["models"]), (3, ["canned"]))
        self.run_well("quota", "set", "acme", "tokens_per_minute=5000", "requests_per_minute=0", "shadow=true")
        quota = json.loads(self.run_well("quota", "show", "acme", "--json"))
        self.assertEqual((quota["limits"]["tokens_per_minute"], quota["limits"]["requests_per_minute"]), (5000, 0))
        self.run_well("quota", "set", "acme", "requests_per_minute=none")
        self.assertRegex(self.run_well("quota", "show", "acme"), r"(?m)^state\.requests_per_minute\.limit +-$")
        key = json.loads(self.run_well("key", "create", "acme", "app", "scopes=model.read", "--json"))
        self.assertTrue(key["key"].startswith("sk-sluice-"))
        self.assertEqual(key["scopes"], ["model.read"])
        self.run_well("key", "set", key["id"], "scopes=none")
        rotated = json.loads(self.run_well("key", "rotate", key["id"], "--overlap", "60", "--json"))
        listed = self.run_well("key", "list", "acme")
        self.assertIn(key["id"], listed)
        self.assertNotIn(key["key"][-64:], listed)
        self.assertRegex(self.run_well("key", "revoke", rotated["id"]), r"(?m)^state +revoked$")
        self.assertIn("--after", self.run_well("key", "list", "acme", "--limit", "1"))
        stale = self.run_badly(1, "tenant", "delete", "acme", "--if-match", '"1"')
        self.assertIn("precondition_failed", stale)
        self.run_well("tenant", "delete", "acme")
        self.assertIn("not_found", self.run_badly(1, "tenant", "show", "acme"))

    def test_usage_of_one_tenant_and_of_all(self):
        keys = {}
        for tenant in ("shop", "depot"):
            self.run_well("tenant", "create", tenant)
            keys[tenant] = json.loads(self.run_well("key", "create", tenant, "app", "--json"))["key"]
        told = {"shop": [], "depot": []}
        for tenant, tokens in (("shop", 20), ("shop", 30), ("depot", 7)):
            answer = self.server.post("/v1/completions", {
                "model": "canned", "prompt": "river", "max_tokens": tokens, "ignore_eos": True},
                {"Authorization": "Bearer " + keys[tenant]})
            self.assertEqual(answer.status, 200, answer.text)
            told[tenant].append(answer.json()["usage"])
        wait_until(lambda: self.server.metric("sluice_store_usage_waiting") == 0
                   and self.server.metric("sluice_journal_live_slots") == 0, "the disk")
        shop = json.loads(self.run_well("usage", "shop", "period=month", "--json"))
        self.assertEqual(shop["total"]["requests"], 2)
        self.assertEqual(shop["total"]["output_tokens"], 50)
        self.assertEqual(shop["total"]["input_tokens"], sum(u["prompt_tokens"] for u in told["shop"]))
        table = self.run_well("usage", "period=month", "group_by=tenant")
        self.assertRegex(table, r"(?m)^period +start +tenant +requests .*output_tokens")
        self.assertRegex(table, r"(?m)^month .*\bdepot\b.*\b7\b")
        self.assertRegex(table, r"(?m)^month .*\bshop\b.*\b50\b")
        self.assertEqual(len(self.run_well("usage", "shop", "format=csv", "group_by=model").splitlines()), 2)
        self.assertEqual(len(self.run_well("usage", "shop", "from=1", "to=2").splitlines()), 1)
        self.assertIn("invalid_value", self.run_badly(1, "usage", "shop", "period=century"))
        self.assertIn("not_found", self.run_badly(1, "usage", "nobody"))
        self.assertIn("NAME=VALUE", self.run_badly(2, "usage", "shop", "period"))

    def test_refusals_and_wrong_use_have_their_exit_codes(self):
        self.assertIn("invalid_value", self.run_badly(1, "tenant", "create", "a b"))
        self.assertIn("invalid_api_key", self.run_badly(
            1, "tenant", "list", environment={**self.environment, "SLUICE_ADMIN_KEY": "sk-wrong"}))
        self.assertIn("admin key is needed", self.run_badly(
            2, "tenant", "list", environment={"SLUICE_URL": self.environment["SLUICE_URL"]}))
        self.assertIn("URL", self.run_badly(2, "tenant", "list", "--url", "ftp://x"))
        self.assertIn("NAME=VALUE", self.run_badly(2, "quota", "set", "acme", "tokens"))
        self.assertIn("cannot connect: Connection refused",
                      self.run_badly(1, "tenant", "list", "--url", "http://127.0.0.1:1"))
        for arguments in (["tenant"], ["quota", "set"], ["tenant", "list", "--nonsense"]):
            self.assertEqual(sluice(*arguments).returncode, 2, arguments)
        for arguments in (["tenant", "--help"], ["quota", "set", "--help"], ["usage", "--help"],
                          ["admin-key", "create", "--help"], ["key", "rotate", "--help"]):
            done = sluice(*arguments)
            self.assertEqual((done.returncode, done.stderr), (0, ""), arguments)
            self.assertGreater(len(done.stdout.splitlines()), 3)

    def test_tls_is_trusted_by_the_certificates_that_are_named(self):
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = os.path.join(folder, "chain.pem"), os.path.join(folder, "key.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                            "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                            "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
                           check=True, capture_output=True)
            config = config_with(models=[canned_model()], state_dir=os.path.join(folder, "state"),
                                 listen={"tls_certificate": certificate, "tls_key": key})
            made = sluice("admin-key", "create", "--state-dir", config["state_dir"])
            environment = {"SLUICE_ADMIN_KEY": made.stdout.strip()}
            with SluiceServer(config) as server:
                self.assertNotIn("the first admin key", "\n".join(server.log), "there was one")
                there = ["tenant", "list", "--url", f"https://127.0.0.1:{server.port}"]
                trusted = sluice(*there, "--ca", certificate, environment=environment)
                self.assertEqual((trusted.returncode, trusted.stderr), (0, ""))
                self.assertIn("cannot connect", self.run_badly(1, *there, environment=environment))
                # The same address, as a name that needs no look-up (the system may not know localhost).
                by_name = ["tenant", "list", "--url", f"https://127.1:{server.port}", "--ca", certificate]
                self.assertIn("certificate verify failed", self.run_badly(1, *by_name, environment=environment),
                              "the certificate names no such host")

    def test_an_admin_key_that_is_made_meanwhile_works_after_a_reload(self):
        state = ["--state-dir", str(self.server.state_dir)]
        made = sluice("admin-key", "create", *state)
        self.assertEqual(made.returncode, 0, made.stderr)
        key = made.stdout.strip()
        path = self.server.home / "key"
        path.write_text(key + "\n")
        tenants = ["tenant", "list", "--key-file", str(path)]
        self.run_badly(1, *tenants)
        def takes():
            self.server.signal(1)  # SIGHUP
            return sluice(*tenants, environment=self.environment).returncode == 0
        wait_until(takes, "the new key to be taken")
        public_id = key.split("-")[3]
        self.assertIn(public_id, sluice("admin-key", "list", *state).stdout)
        self.assertEqual(sluice("admin-key", "delete", public_id, *state).returncode, 0)
        self.assertEqual(sluice("admin-key", "delete", public_id, *state).returncode, 1)
        def refused():
            self.server.signal(1)
            return sluice(*tenants, environment=self.environment).returncode == 1
        wait_until(refused, "the key to be gone")
        self.assertNotIn(key[-64:], "\n".join(self.server.log))


if __name__ == "__main__":
    run_main()
