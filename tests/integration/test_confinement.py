"""Least privilege: a worker that was taken over reaches neither files, sockets, programs, other
processes nor the gateway's memory; and what clients send stands in no log, metric, file or core.

The hostile worker is the shipped main() around an executor that attacks (compromised_executor.cc).
Sanitizer builds have no filters: those cases skip there.
"""
import errno
import hashlib
import os
import pathlib
import re
import resource
import shutil
import signal
import tempfile
import unittest

import sluice_process
from http_client import Closed, Stream
from sluice_process import BIN, IS_UNCONFINED, SOURCE, SluiceServer, canned_model, config_with, wait_until

HAS_FILTERS = os.environ.get("SLUICE_SANITIZED") != "1" and not IS_UNCONFINED
COMPLETION = {"model": "canned", "prompt": "river", "max_tokens": 3, "ignore_eos": True}
# Refused by the filter, and (the region) by its seals and by the way it was mapped.
REFUSED = {
    "open_read", "open_memory", "openat", "openat2", "creat", "stat", "unlink", "memfd", "io_uring",
    "socket_inet", "socket_unix", "socket_netlink", "socketpair", "sendto", "sendmsg_elsewhere",
    "fork", "clone", "kill_parent", "tgkill_parent", "become_dumpable", "raise_limit", "setuid",
    "map_executable", "make_executable",
    "region_map_writable", "region_make_writable", "region_write", "region_pwrite",
    "region_shrink", "region_punch", "region_unseal"}
# An attacker who runs before the filter is there is stopped by the seals alone.
SEALED = {"region_map_writable", "region_make_writable", "region_write", "region_pwrite",
          "region_shrink", "region_punch", "region_unseal"}


class CompromisedServer(SluiceServer):
    """`sluice serve` with the hostile worker beside it under the shipped worker's name."""

    def __init__(self, config):
        super().__init__(config, environment={"SLUICE_DATA_DIR": str(SOURCE / "models")})
        self.programs = self.home / "bin"
        self.programs.mkdir()
        shutil.copy(BIN / "sluice", self.programs / "sluice")
        shutil.copy(BIN / "compromised_worker", self.programs / "sluice-worker")

    def command(self):
        return [str(self.programs / "sluice"), "serve", "--config", str(self.config_path)]

    def attempts(self):
        """What the hostile worker tried: name -> errno."""
        wait_until(lambda: any(line.startswith("attempts_done") for line in self.log), "the attempts")
        found = {}
        for line in list(self.log):
            match = re.fullmatch(r"attempt=(\w+) errno=(\d+)", line)
            if match:
                found[match.group(1)] = int(match.group(2))
        return found


class CompromisedWorker(unittest.TestCase):
    @unittest.skipUnless(HAS_FILTERS, "no filters in sanitizer builds and under valgrind")
    def test_everything_it_tries_is_refused(self):
        with CompromisedServer(config_with()) as server:
            answer = server.post("/v1/completions", COMPLETION)
            found = server.attempts()
            self.assertIn("attempts_done regions=1", server.log)
            self.assertEqual(set(found), REFUSED)
            for name, number in found.items():
                self.assertEqual(number, errno.EACCES if name == "region_make_writable" else errno.EPERM,
                                 name)
            # The attempts did not disturb what it is there for.
            self.assertEqual(answer.status, 200, answer.text)
            self.assertEqual(answer.json()["usage"]["completion_tokens"], 3)
            self.assertFalse(pathlib.Path("/tmp/sluice-attack").exists())

    @unittest.skipUnless(HAS_FILTERS, "no filters in sanitizer builds and under valgrind")
    def test_starting_a_program_or_reading_a_process_ends_it(self):
        for name in ("execve", "ptrace", "read_memory"):
            with self.subTest(name):
                config = config_with(models=[canned_model(canned_crash_marker="fatal:" + name)])
                with CompromisedServer(config) as server:
                    answer = server.post("/v1/completions", COMPLETION)
                    self.assertEqual(answer.status, 500, answer.text)
                    self.assertEqual(answer.json()["error"]["code"], "poisoned_request")
                    how = f'how="signal {signal.SIGSYS.value}"'
                    wait_until(lambda: any(how in line for line in server.log), how)
                    self.assertNotIn("survived", "\n".join(server.log))

    def test_without_filters_the_seals_still_hold(self):
        with CompromisedServer(config_with(confine_processes=False)) as server:
            server.post("/v1/completions", COMPLETION)
            found = server.attempts()
            self.assertIn("attempts_done regions=1", server.log)
            for name in SEALED:
                self.assertIn(found[name], (errno.EPERM, errno.EACCES), name)
            # The same attempts do succeed without a filter: the other test sees the filter at work.
            for name in ("open_read", "socket_inet", "socket_unix", "memfd"):
                self.assertEqual(found[name], 0, name)
            pathlib.Path("/tmp/sluice-attack").unlink(missing_ok=True)


def status_of(pid):
    lines = pathlib.Path("/proc", str(pid), "status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


class LeastPrivilege(unittest.TestCase):
    @unittest.skipUnless(HAS_FILTERS, "no filters in sanitizer builds and under valgrind")
    def test_every_process_has_its_filters_and_no_new_privileges(self):
        with SluiceServer(config_with()) as server:
            parent, gateway, worker = (server.process.pid, server.gateway_pid(),
                                       server.worker_pids()[0])
            # The parent's filter is inherited; gateway and worker add one each.
            for pid, filters in ((parent, 1), (gateway, 2), (worker, 2)):
                status = status_of(pid)
                self.assertEqual(status["NoNewPrivs"], "1")
                self.assertEqual(status["Seccomp"], "2")
                self.assertEqual(status["Seccomp_filters"], str(filters))

    @unittest.skipUnless(os.geteuid() == 0, "another's descriptors are for root to see")
    def test_a_loaded_worker_holds_no_file(self):
        with SluiceServer(config_with()) as server:
            server.post("/v1/completions", COMPLETION)
            folder = pathlib.Path("/proc", str(server.worker_pids()[0]), "fd")
            held = sorted(os.readlink(link) for link in folder.iterdir())
            for target in held:
                self.assertRegex(target, r"^(/dev/null|pipe:.*|socket:.*|anon_inode:\[eventfd\]|"
                                         r"/memfd:sluice-(submit|step)-ring \(deleted\))$", held)
            self.assertEqual(sum(target.startswith("socket:") for target in held), 1, held)


class Secrets(unittest.TestCase):
    """Markers as prompt and as key: through answers, refusals and crashes, they are found nowhere."""
    prompt = "zanzibar-quokka-7319"
    key = "sk-sluice-marker-55102873"
    wrong_key = "sk-sluice-wrong-90817263"

    def setUp(self):
        # What the processes forbid themselves is not forbidden by the shell that runs the tests.
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_CORE, (soft, hard))
        self.bodies = []

    def post(self, server, path, body, key=None):
        headers = {"Authorization": "Bearer " + (key or self.key)}
        answer = server.post(path, body, headers)
        if answer.status != 200:
            self.bodies.append(answer.text)
        return answer

    def refusals(self, server):
        chat = {"model": "canned", "messages": [{"role": "user", "content": self.prompt}]}
        rows = [
            ({**chat, "temperature": 9}, None, 400),
            ({**chat, "messages": [{"role": self.prompt, "content": self.prompt}]}, None, 400),
            ({**chat, "messages": [{"role": "user", "content": self.prompt * 5000}]}, None, 400),
            ({**chat, "tools": self.prompt}, None, 400),
            ({**chat, "stop": [self.prompt] * 9}, None, 400),
            ('{"model":"canned","messages":[{"role":"user","content":"%s"' % self.prompt, None, 400),
            (chat, self.wrong_key, 401),
        ]
        for body, key, status in rows:
            answer = self.post(server, "/v1/chat/completions", body, key)
            self.assertEqual(answer.status, status, answer.text[:300])

    def crash(self, server, pid, number):
        """A signal that dumps core, while a stream of the marker prompt runs."""
        ready = server.num_gateways_ready
        is_gateway = pid == server.gateway_pid()
        stream = Stream(server.port, "/v1/completions",
                        {**COMPLETION, "prompt": self.prompt, "max_tokens": 400},
                        {"Authorization": "Bearer " + self.key})
        events = stream.events()
        next(events)
        os.kill(pid, number)
        try:
            for _ in events:
                pass
        except Closed:
            pass
        stream.close()
        if is_gateway:
            wait_until(lambda: server.num_gateways_ready > ready, "the next gateway")
        wait_until(lambda: server.request("GET", "/ready").status == 200, "a ready server")

    def test_markers_are_found_nowhere(self):
        digest = hashlib.sha256(self.key.encode()).hexdigest()
        config = config_with(
            models=[canned_model(canned_step_us=2000)], log_level="debug",
            supervision={"restart_delay": "5ms", "restart_delay_max": "20ms"},
            tenants=[{"name": "team", "keys": [{"name": "one", "sha256": digest}]}])
        with tempfile.TemporaryDirectory() as folder, SluiceServer(config, folder=folder) as server:
            answer = self.post(server, "/v1/completions", {**COMPLETION, "prompt": self.prompt})
            self.assertEqual(answer.status, 200, answer.text)
            self.refusals(server)
            self.crash(server, server.worker_pids()[0], signal.SIGSEGV)
            self.crash(server, server.gateway_pid(), signal.SIGABRT)
            places = {
                "log": "\n".join(server.log),
                "metrics": server.request("GET", "/metrics").text,
                "errors": "\n".join(self.bodies),
            }
            parent = server.process.pid
            os.kill(parent, signal.SIGSEGV)
            server.process.wait()
            for home in (server.home, pathlib.Path(folder)):
                for file in home.rglob("*"):
                    self.assertFalse(file.name.startswith("core"), file)
                    if file.is_file():
                        places[str(file)] = file.read_bytes().decode("latin-1")
            self.assertTrue(any(name.endswith("journal") for name in places), places.keys())
            for name, text in places.items():
                for secret in (self.prompt, self.key, self.wrong_key):
                    self.assertNotIn(secret, text, name)
            self.assert_no_core_elsewhere(parent)

    def assert_no_core_elsewhere(self, parent):
        """Where the kernel's pattern names a folder, nothing of ours may lie there."""
        pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()
        if pattern.startswith("/"):
            for file in pathlib.Path(pattern).parent.glob("*core*"):
                self.assertNotIn(str(parent), file.name)


if __name__ == "__main__":
    sluice_process.run_main()
