"""A client on raw sockets for the process tests: it sees every byte, can be slow, stop half-way, and
send what no library would. Standard library only."""
import json
import os
import socket
import ssl
import time

TIMEOUT = 30 * float(os.environ.get("SLUICE_PATIENCE", "1"))


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers  # lower-case names; of repeated ones the last
        self.body = body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


class Closed(Exception):
    """The server closed the connection before the answer was complete."""


class Connection:
    """One connection; bytes in, responses out."""

    def __init__(self, port, tls=None, receive_buffer=None, timeout=TIMEOUT):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _fill(self, size=65536):
        try:
            data = self.socket.recv(size)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Closed(str(error)) from error
        if not data:
            raise Closed("end of file")
        self.buffer += data

    def _until(self, mark):
        while mark not in self.buffer:
            self._fill()
        at = self.buffer.index(mark) + len(mark)
        data, self.buffer = self.buffer[:at], self.buffer[at:]
        return data

    def _exactly(self, size):
        while len(self.buffer) < size:
            self._fill()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_head(self):
        """(status, headers) of the next final response; 100 Continue is skipped."""
        while True:
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {}
            for line in lines[1:]:
                if line:
                    name, value = line.split(":", 1)
                    headers[name.lower()] = value.strip()
            if status >= 200:
                return status, headers

    def body_pieces(self, headers):
        """Pieces of the body as the framing has them."""
        if headers.get("transfer-encoding") == "chunked":
            while True:
                size = int(self._until(b"\r\n").split(b";")[0], 16)
                piece = self._exactly(size)
                self._exactly(2)
                if size == 0:
                    return
                yield piece
        elif "content-length" in headers:
            yield self._exactly(int(headers["content-length"]))
        else:
            while True:
                try:
                    if not self.buffer:
                        self._fill()
                except Closed:
                    return
                piece, self.buffer = self.buffer, b""
                yield piece

    def read_response(self, head_only=False):
        status, headers = self.read_head()
        body = b"" if head_only or status in (204, 304) else b"".join(self.body_pieces(headers))
        return Response(status, headers, body)

    def read_to_end(self):
        """Everything up to the close."""
        while True:
            try:
                self._fill()
            except Closed:
                data, self.buffer = self.buffer, b""
                return data

    def is_closed_by_server(self):
        try:
            self._fill()
        except Closed:
            return True
        except (TimeoutError, ssl.SSLError):
            return False
        return False


def encode_request(method, path, body=None, headers=None):
    if body is None:
        data = b""
    elif isinstance(body, bytes):
        data = body
    elif isinstance(body, str):
        data = body.encode()
    else:
        data = json.dumps(body).encode()
    lines = {"Host": "localhost"}
    if body is not None:
        lines["Content-Type"] = "application/json"
    if body is not None or method == "POST":
        lines["Content-Length"] = str(len(data))
    lines.update(headers or {})
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return head.encode("latin-1") + b"\r\n" + data


def request(port, method, path, body=None, headers=None, **kwargs):
    with Connection(port, **kwargs) as connection:
        try:
            connection.send(encode_request(method, path, body, headers))
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before all was read
        return connection.read_response(head_only=method == "HEAD")


def exchange(port, data, **kwargs):
    """Sends bytes as they are and reads one response."""
    with Connection(port, **kwargs) as connection:
        try:
            connection.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return connection.read_response()


class Stream:
    """One streamed request. events() yields the decoded `data:` values; [DONE] ends it.

    pause: seconds between reads, read_bytes: how much at a time; with a small receive buffer the
    server sees a client that does not keep up."""

    def __init__(self, port, path, body, headers=None, pause=0, read_bytes=65536,
                 receive_buffer=None, **kwargs):
        self.connection = Connection(port, receive_buffer=receive_buffer, **kwargs)
        self.pause = pause
        if pause:
            fill = self.connection._fill
            def slow_fill(_size=0):
                time.sleep(pause)
                fill(read_bytes)
            self.connection._fill = slow_fill
        try:
            self.connection.send(encode_request("POST", path, {**body, "stream": True}, headers))
        except OSError:
            self.connection.close()
            raise
        self.status = None
        self.headers = {}
        self.is_done = False
        self.error = None

    def open(self):
        if self.status is None:
            self.status, self.headers = self.connection.read_head()
        return self

    def events(self):
        self.open()
        text = b""
        for piece in self.connection.body_pieces(self.headers):
            text += piece
            while b"\n\n" in text:
                event, text = text.split(b"\n\n", 1)
                for line in event.split(b"\n"):
                    if not line.startswith(b"data: "):
                        continue
                    data = line[6:].decode("utf-8")
                    if data == "[DONE]":
                        self.is_done = True
                        continue
                    value = json.loads(data)
                    if "error" in value:
                        self.error = value["error"]
                    yield value

    def close(self):
        self.connection.close()


class Collected:
    """What a stream delivered: text, log-probabilities and finish reason of each choice, usage, error."""

    def __init__(self):
        self.texts = {}
        self.logprobs = {}  # of each choice: one list of tokens after another, as they are written
        self.finish = {}
        self.usage = None
        self.error = None
        self.is_done = False
        self.status = None

    def add(self, event):
        if event.get("usage"):
            self.usage = event["usage"]
        if "error" in event:
            self.error = event["error"]
        for choice in event.get("choices", []):
            index = choice["index"]
            text = choice.get("text")
            if text is None:
                text = choice.get("delta", {}).get("content") or ""
            self.texts[index] = self.texts.get(index, "") + text
            for name, values in (choice.get("logprobs") or {}).items():
                for value in values or ():
                    self.logprobs.setdefault(index, []).append((name, json.dumps(value)))
            if choice.get("finish_reason"):
                self.finish[index] = choice["finish_reason"]

    def key(self):
        """What must not change: text, log-probabilities, finish reasons, usage."""
        by_list = {index: sorted(values, key=lambda value: value[0])  # stable: each list in its order
                   for index, values in self.logprobs.items()}
        return (sorted(self.texts.items()), sorted(by_list.items()), sorted(self.finish.items()),
                self.usage and (self.usage["prompt_tokens"], self.usage["completion_tokens"]),
                self.error and self.error.get("code"), self.is_done)


def collect(port, path, body, headers=None, on_event=None, **kwargs):
    """Runs a streamed request to its end."""
    body = {**body, "stream_options": {"include_usage": True}}
    stream = Stream(port, path, body, headers, **kwargs)
    collected = Collected()
    try:
        stream.open()
        if stream.status != 200:  # refused before the first token: an ordinary error answer
            body = b"".join(stream.connection.body_pieces(stream.headers))
            collected.error = json.loads(body)["error"]
        else:
            for event in stream.events():
                collected.add(event)
                if on_event:
                    on_event(event)
    except Closed:
        pass
    finally:
        stream.close()
    collected.is_done = stream.is_done
    collected.status = stream.status
    return collected
