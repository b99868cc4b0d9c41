"""Runs `sluice serve` for the process tests: own state directory, own configuration, port 0.

Also finds the children by /proc, reads /metrics and the journal file, and keeps the server's log so
that a failing test can show it. Standard library only.
"""
import collections
import json
import os
import pathlib
import queue
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import http_client

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("SLUICE_BIN", SOURCE / "build" / "release" / "bin"))
START_TIMEOUT = 30
# Sanitizer builds are many times slower: ctest sets this for them.
PATIENCE = float(os.environ.get("SLUICE_PATIENCE", "1"))
# scripts/memcheck: gateway and workers start under this command, and without system call filters.
EXEC_UNDER = os.environ.get("SLUICE_EXEC_UNDER")
IS_UNCONFINED = os.environ.get("SLUICE_UNCONFINED") == "1"


def to_yaml(value, indent=0):
    """Plain data as YAML: nested dicts and lists of dicts in block style, the rest as JSON."""
    pad = " " * indent
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            if isinstance(item, dict) and item:
                lines.append(f"{pad}{key}:\n{to_yaml(item, indent + 2)}")
            elif isinstance(item, list) and item and isinstance(item[0], dict):
                lines.append(f"{pad}{key}:\n{to_yaml(item, indent + 2)}")
            elif isinstance(item, str) and re.fullmatch(r"\d+(ms|s|m|h|B|KiB|MiB|GiB)", item):
                lines.append(f"{pad}{key}: {item}")
            else:
                lines.append(f"{pad}{key}: {json.dumps(item)}")
        return "\n".join(lines)
    lines = []
    for item in value:
        text = to_yaml(item, indent + 2)
        lines.append(f"{pad}- {text[indent + 2:]}")
    return "\n".join(lines)


def config_with(**changes):
    """The tests' configuration: small, quick, one canned model. Dicts are merged one level deep."""
    config = {
        "listen": {"address": "127.0.0.1", "port": 0},
        "models": [{"name": "canned", "kind": "canned"}],
        "supervision": {"restart_delay": "10ms"},
        "queue": {"drain_timeout": "10s"},
    }
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            config[key] = {**config[key], **value}
        else:
            config[key] = value
    return config


def canned_model(**changes):
    return {"name": "canned", "kind": "canned", **changes}


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = pathlib.Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2:].split()
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry))
    return sorted(found)


def command_of(pid):
    try:
        return pathlib.Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def is_alive(pid):
    try:
        stat = pathlib.Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] != "Z"


def wait_until(condition, what, timeout=10):
    """Polls a condition of the outside world; the value that made it true is returned."""
    end = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"timed out waiting for {what}")
        time.sleep(0.005)


Journal = collections.namedtuple("Journal", "requests prompt accepted live live_prompt live_accepted")
# shared/PROTOCOL.md: header of 4096 bytes, then slots of 128.
JOURNAL_MAGIC = 0x314C4E524A4C53
JOURNAL_TOTALS_AT = 48
JOURNAL_SLOT = struct.Struct("<IIQQIIII")


def read_journal(state_dir):
    data = pathlib.Path(state_dir, "journal").read_bytes()
    magic, _version, num_slots = struct.unpack_from("<QII", data, 0)
    assert magic == JOURNAL_MAGIC, hex(magic)
    requests, prompt, accepted = struct.unpack_from("<QQQ", data, JOURNAL_TOTALS_AT)
    live = live_prompt = live_accepted = 0
    for i in range(num_slots):
        slot = JOURNAL_SLOT.unpack_from(data, 4096 + 128 * i)
        if slot[0] == 1:
            live += 1
            live_prompt += slot[5]
            live_accepted += slot[6]
    return Journal(requests, prompt, accepted, live, live_prompt, live_accepted)


class SluiceServer:
    """One `sluice serve`. Use as a context manager, or start() and stop()."""

    def __init__(self, config=None, arguments=(), environment=None, folder=None):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-test-"))
        config = config if config is not None else config_with()
        self.state_dir = pathlib.Path(config.get("state_dir", self.home / "state"))
        self.config_path = self.home / "sluice.yaml"
        self.write_config(config)
        self.arguments = list(arguments)
        self.environment = {**os.environ, **(environment or {})}
        if EXEC_UNDER:
            self.environment["LD_PRELOAD"] = str(BIN / "libexec_under.so")
        self.folder = folder  # working directory of the processes
        self.process = None
        self.ready_line = None
        self.port = None
        self.log = collections.deque(maxlen=2000)
        self.num_gateways_ready = 0

    def write_config(self, config):
        config = {"state_dir": str(self.state_dir), **config}
        if IS_UNCONFINED:
            config["confine_processes"] = False
        self.config_path.write_text(to_yaml(config) + "\n")

    def command(self):
        return [str(BIN / "sluice"), "serve", "--config", str(self.config_path), *self.arguments]

    def spawn(self):
        self.lines = queue.Queue()
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=self.environment, cwd=self.folder, text=True, errors="replace",
            start_new_session=True)
        threading.Thread(target=self._drain_output, args=(self.process,), daemon=True).start()
        return self

    def _drain_output(self, process):
        for line in process.stdout:
            self.log.append(line.rstrip("\n"))
            self.num_gateways_ready += "event=gateway_ready" in line
            if line.startswith("sluice ready: "):
                self.lines.put(line)
        process.stdout.close()
        self.lines.put(None)

    def start(self):
        return self.spawn().started()

    def started(self):
        """Waits for what spawn() began."""
        try:
            self.ready_line = self.lines.get(timeout=START_TIMEOUT * PATIENCE)
        except queue.Empty:
            self.ready_line = None
        if self.ready_line is None:
            self.kill()
            raise AssertionError("sluice did not become ready:\n" + "\n".join(self.log))
        self.port = int(re.search(r"https?://\S+?:(\d+)\b", self.ready_line).group(1))
        return self

    def gateway_pid(self):
        def find():
            return [pid for pid in children_of(self.process.pid) if b"gateway-role" in command_of(pid)]
        return wait_until(find, "the gateway process")[0]

    def worker_pids(self):
        return [pid for pid in children_of(self.process.pid)
                if any(os.path.basename(word) == b"sluice-worker" for word in command_of(pid))]

    def request(self, method, path, body=None, headers=None, **kwargs):
        return http_client.request(self.port, method, path, body, headers, **kwargs)

    def post(self, path, body, headers=None, **kwargs):
        return self.request("POST", path, body, headers, **kwargs)

    def stream(self, path, body, headers=None, **kwargs):
        return http_client.Stream(self.port, path, body, headers, **kwargs)

    def metrics(self):
        """{(name, frozenset of labels): value} of the metrics page."""
        text = self.request("GET", "/metrics").text
        samples = {}
        for line in text.splitlines():
            match = re.fullmatch(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
            if match and not line.startswith("#"):
                labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match.group(2) or ""))
                samples[match.group(1), labels] = float(match.group(3))
        return samples

    def metric(self, name, **labels):
        """The sum of a metric's samples that carry these labels."""
        wanted = set(labels.items())
        return sum(value for (found, having), value in self.metrics().items()
                   if found == name and wanted <= having)

    def journal(self):
        return read_journal(self.state_dir)

    def signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self, timeout=30):
        return self.process.wait(timeout * PATIENCE)

    def stop(self):
        """Ends the server at once and returns its exit code."""
        if self.process and self.process.poll() is None:
            # The second signal cuts the drain short.
            for _ in range(2):
                if self.process.poll() is None:
                    self.signal(signal.SIGTERM)
                    time.sleep(0.01)
            try:
                self.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode if self.process else None

    def kill(self):
        if not self.process:
            return
        for pid in children_of(self.process.pid) + [self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

    def close(self):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, _value, _trace):
        if kind is not None:
            print("\n".join(["---- server log"] + list(self.log)[-60:] + ["----"]))
        self.close()


class ServerTest(unittest.TestCase):
    """A test case whose server starts once for the class. Override `config`."""
    maxDiff = 2000
    config = None

    @classmethod
    def setUpClass(cls):
        cls.server = SluiceServer(cls.config).start()

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def tearDown(self):
        # Whatever a test sent: the same processes live on.
        self.assertIsNone(self.server.process.poll(), "the parent ended:\n" + "\n".join(self.server.log))

    def assert_error(self, response, status, code, param=None):
        self.assertEqual(response.status, status, response.text[:500])
        error = response.json()["error"]
        self.assertEqual(error["code"], code, error)
        self.assertIsInstance(error["message"], str)
        self.assertTrue(error["message"])
        if param is not None:
            self.assertEqual(error["param"], param, error)
        return error


def raise_descriptor_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def run_main():
    unittest.main(verbosity=2)
