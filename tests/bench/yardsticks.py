"""What the benches share: repeated figures, and the servers that run_http.py compares (nginx, bare Beast
and Sluice), each on loopback with a port of its own and a temporary folder. Standard library only."""
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import sluice_process  # noqa: E402

# As beast_echo.cc answers: the size of a one-token completion.
BODY = ('{"id":"cmpl-000000000000000000000000","object":"text_completion","created":1700000000,'
        '"model":"canned","system_fingerprint":"fp_0000000000000000","choices":[{"index":0,'
        '"text":"and","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":16,'
        '"completion_tokens":1,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":0}}}')

NGINX = """
daemon off;
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{body}'; }}
  }}
}}
"""


class Figures:
    """Repeats of one number."""

    def __init__(self, values):
        self.values = list(values)

    @property
    def median(self):
        return statistics.median(self.values)

    def as_json(self):
        return {"median": self.median, "min": min(self.values), "max": max(self.values),
                "repeats": len(self.values)}

    def text(self, digits=0):
        return f"{self.median:,.{digits}f} ({min(self.values):,.{digits}f} .. {max(self.values):,.{digits}f})"


def post_json(port, path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)


def process_cpu_seconds(pid):
    """CPU time of a process to the nanosecond: its clock, as clock_getcpuclockid(3) forms it."""
    return time.clock_gettime((~pid << 3) | 2)


def tree_of(pid):
    found = [pid]
    for parent in found:
        found += sluice_process.children_of(parent)
    return found


class Server:
    """A running server: name, port, pid of its root process."""

    def __init__(self, name, port, process):
        self.name, self.port, self.process = name, port, process

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


class Nginx(Server):
    def __init__(self, name="nginx"):
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
        if not program:
            raise SystemExit("nginx is missing: scripts/install_packages test")
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="sluice-nginx-"))
        # nginx cannot pick a port itself; one that was just free is tried, and another if it is lost.
        for _ in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            config = self.home / "nginx.conf"
            config.write_text(NGINX.format(home=self.home, port=port, body=BODY))
            process = subprocess.Popen([program, "-c", str(config), "-p", str(self.home)],
                                       stderr=subprocess.PIPE)
            if self._answers(process, port):
                super().__init__(name, port, process)
                return
        raise SystemExit("nginx does not start: " + process.stderr.read().decode())

    @staticmethod
    def _answers(process, port):
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                time.sleep(0.01)
        return False

    def stop(self):
        super().stop()
        shutil.rmtree(self.home, ignore_errors=True)


class Beast(Server):
    def __init__(self, bin_dir, variant):
        process = subprocess.Popen([bin_dir / "beast_echo", variant], stdout=subprocess.PIPE, text=True)
        port = int(process.stdout.readline().split()[1])
        super().__init__("beast" if variant == "preformatted" else "beast+serializer", port, process)


class Sluice(Server):
    def __init__(self, **config):
        self.server = sluice_process.SluiceServer(sluice_process.config_with(**config)).start()
        super().__init__("sluice", self.server.port, self.server.process)

    def gateway_pid(self):
        return self.server.gateway_pid()

    def store_cpu_seconds(self):
        """Of the thread that brings usage to the disk."""
        tasks = pathlib.Path(f"/proc/{self.gateway_pid()}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks.iterdir()
                   if (task / "comm").read_text().strip() == "usage-writer")

    def stop(self):
        self.server.close()
