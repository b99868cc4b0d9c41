"""Bad input at the level of bytes: each case has its status and code, and a living process afterwards."""
import json
import socket
import sys
import threading

import sluice_process
from http_client import Closed, Connection, collect, encode_request, exchange
from sluice_process import ServerTest, canned_model, config_with, raise_descriptor_limit

GOOD = {"model": "canned", "prompt": "a", "max_tokens": 2, "ignore_eos": True}


def raw_post(head_lines, body=b"", path="/v1/completions", version="HTTP/1.1"):
    head = f"POST {path} {version}\r\n".encode() + b"".join(
        (line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in head_lines)
    return head + b"\r\n" + body


def post_head(*lines):
    return ["Host: x", "Content-Type: application/json", *lines]


class HostileBase(ServerTest):
    def setUp(self):
        self.pids = [self.server.process.pid, self.server.gateway_pid(), *self.server.worker_pids()]

    def tearDown(self):
        super().tearDown()
        now = [self.server.process.pid, self.server.gateway_pid(), *self.server.worker_pids()]
        self.assertEqual(now, self.pids, "a process was restarted:\n" + "\n".join(self.server.log))
        answer = self.server.post("/v1/completions", GOOD)
        self.assertEqual(answer.status, 200, answer.text)


class HostileHttp(HostileBase):
    good = json.dumps(GOOD).encode()

    def length(self):
        return f"Content-Length: {len(self.good)}"

    def test_framing_that_two_parties_could_read_differently(self):
        size = len(self.good)
        chunked = "Transfer-Encoding: chunked"
        one_chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (size, self.good)
        rows = {
            "length and coding": (post_head(self.length(), chunked), one_chunk),
            "two lengths": (post_head(self.length(), self.length()), self.good),
            "different lengths": (post_head(self.length(), "Content-Length: 1"), self.good),
            "listed length": (post_head(f"Content-Length: {size}, {size}"), self.good),
            "plus sign": (post_head(f"Content-Length: +{size}"), self.good),
            "minus sign": (post_head("Content-Length: -1"), b""),
            "blank in length": (post_head(f"Content-Length: {size} 1"), self.good),
            "hex length": (post_head("Content-Length: 0x10"), self.good),
            "huge length": (post_head("Content-Length: 99999999999999999999999"), b""),
            "unknown coding": (post_head("Transfer-Encoding: gzip, chunked"), one_chunk),
            "coding twice": (post_head(chunked, chunked), one_chunk),
            "coding with a blank": (post_head("Transfer-Encoding : chunked"), one_chunk),
            "coding with a tab": (post_head("Transfer-Encoding:\x0bchunked"), one_chunk),
            "folded header": (post_head("X: a\r\n b", self.length()), self.good),
            "bare CR": (post_head("X: a\rb", self.length()), self.good),
            "bare LF": (post_head("X: a\nY: b", self.length()), self.good),
            "NUL": (post_head("X: a\0b", self.length()), self.good),
            "no host": (["Content-Type: application/json", self.length()], self.good),
            "two hosts": (post_head("Host: y", self.length()), self.good),
            "blank before colon": (post_head("X : a", self.length()), self.good),
            "no colon": (post_head("nonsense", self.length()), self.good),
            "bad chunk size": (post_head(chunked), b"xyz\r\n"),
            "negative chunk": (post_head(chunked), b"-5\r\nhello\r\n0\r\n\r\n"),
            "huge chunk": (post_head(chunked), b"fffffffffffffffff\r\n"),
            "chunk size with LF": (post_head(chunked), b"5\nhello\n0\n\n"),
            "chunk data too long": (post_head(chunked), b"2\r\nabcdef\r\n0\r\n\r\n"),
            "quoted chunk extension": (post_head(chunked), b'%x;a="\n"\r\n%s\r\n0\r\n\r\n' % (size, self.good)),
            "long chunk extension": (post_head(chunked), b"1;" + b"a" * 20000 + b"\r\nx\r\n0\r\n\r\n"),
        }
        for name, (lines, body) in rows.items():
            with self.subTest(name), Connection(self.server.port) as connection:
                connection.send(raw_post(lines, body))
                response = connection.read_response()
                self.assertIn(response.status, (400, 413, 431, 501), response.text)
                self.assertIn(response.json()["error"]["code"],
                              ("malformed_http", "request_too_large", "headers_too_large"))
                self.assertTrue(connection.is_closed_by_server(), "the connection must not go on")

    def test_unusual_but_legal_requests_work(self):
        size = len(self.good)
        chunked = post_head("Transfer-Encoding: chunked")
        rows = {
            "chunks": raw_post(chunked, b"%x\r\n%s\r\n0\r\n\r\n" % (size, self.good)),
            "one byte chunks": raw_post(chunked, b"".join(
                b"1\r\n%c\r\n" % byte for byte in self.good) + b"0\r\n\r\n"),
            "chunk extension": raw_post(chunked, b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (size, self.good)),
            "trailer": raw_post(chunked, b"%x\r\n%s\r\n0\r\nX: y\r\n\r\n" % (size, self.good)),
            "absolute target": raw_post(post_head(self.length()), self.good,
                                        path="http://localhost/v1/completions"),
            "query": raw_post(post_head(self.length()), self.good, path="/v1/completions?x=1"),
            "media type parameter": raw_post(
                ["Host: x", "Content-Type: application/json; charset=utf-8", self.length()], self.good),
            "odd case": raw_post(["hOST: x", "cONTENT-tYPE: application/json", self.length()], self.good),
        }
        for name, data in rows.items():
            with self.subTest(name):
                response = exchange(self.server.port, data)
                self.assertEqual(response.status, 200, response.text)

    def test_heads_that_are_not_http(self):
        rows = {
            "text": b"hello\r\n\r\n",
            "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
            "no version": b"GET /live\r\n\r\n",
            "version 3": b"GET /live HTTP/3.0\r\nHost: x\r\n\r\n",
            "blank in target": b"GET /li ve HTTP/1.1\r\nHost: x\r\n\r\n",
            "control in target": b"GET /li\x01ve HTTP/1.1\r\nHost: x\r\n\r\n",
        }
        for name, data in rows.items():
            with self.subTest(name), Connection(self.server.port) as connection:
                connection.send(data)
                answer = connection.read_to_end()
                self.assertTrue(answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 505")),
                                answer[:200])

    def test_paths_are_not_rewritten(self):
        for path in ("/v1/../metrics", "//v1/models", "/v1/models/%00", "/%2e%2e/etc/passwd",
                     "/v1/models/..%2f..", "/v1/%6dodels/", "/V1/models", "/v1/models/" + "a" * 5000):
            with self.subTest(path[:40]):
                response = self.server.request("GET", path)
                self.assertIn(response.status, (400, 404), response.text[:300])
                self.assertNotIn("root:", response.text)

    def test_upgrades_are_not_followed(self):
        response = self.server.request("GET", "/v1/models", headers={
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})
        self.assertEqual(response.status, 200)

    def test_too_many_and_too_large_headers(self):
        rows = {
            "one huge": "X: " + "a" * 100_000,
            "many small": "\r\n".join(f"X-{i}: a" for i in range(5000)),
            "huge target": None,
        }
        for name, line in rows.items():
            with self.subTest(name):
                data = (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n" if line is None
                        else b"GET /live HTTP/1.1\r\nHost: x\r\n" + line.encode() + b"\r\n\r\n")
                self.assert_error(exchange(self.server.port, data), 431, "headers_too_large")

    def test_bodies_over_the_limit(self):
        limit = 8 << 20
        declared = raw_post(post_head(f"Content-Length: {limit + 1}"))
        self.assert_error(exchange(self.server.port, declared), 413, "request_too_large")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        data = raw_post(post_head("Transfer-Encoding: chunked"), chunk * (limit // 0x10000 + 2))
        self.assert_error(exchange(self.server.port, data), 413, "request_too_large")

    def test_media_types(self):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            response = self.server.post("/v1/completions", GOOD, {"Content-Type": kind})
            self.assert_error(response, 415, "unsupported_media_type")

    def test_expect_continue(self):
        with Connection(self.server.port) as connection:
            connection.send(raw_post(post_head(self.length(), "Expect: 100-continue")))
            self.assertTrue(connection._until(b"\r\n\r\n").startswith(b"HTTP/1.1 100"))
            connection.send(self.good)
            self.assertEqual(connection.read_response().status, 200)
        with Connection(self.server.port) as connection:
            connection.send(raw_post(post_head("Content-Length: 99999999", "Expect: 100-continue")))
            self.assertEqual(connection.read_head()[0], 413)

    def test_pipelined_requests_are_answered_in_order(self):
        bodies = [{**GOOD, "max_tokens": n} for n in (5, 1, 3, 2)]
        with Connection(self.server.port) as connection:
            connection.send(b"".join(encode_request("POST", "/v1/completions", b) for b in bodies))
            for body in bodies:
                usage = connection.read_response().json()["usage"]
                self.assertEqual(usage["completion_tokens"], body["max_tokens"])

    def test_a_request_behind_a_stream_waits_for_its_end(self):
        with Connection(self.server.port) as connection:
            connection.send(encode_request("POST", "/v1/completions",
                                           {**GOOD, "max_tokens": 50, "stream": True}) +
                            encode_request("GET", "/live"))
            self.assertIn(b"[DONE]", connection.read_response().body)
            self.assertEqual(connection.read_response().status, 200)

    def test_keep_alive_and_close(self):
        with Connection(self.server.port) as connection:
            for _ in range(3):
                connection.send(encode_request("POST", "/v1/completions", GOOD))
                self.assertEqual(connection.read_response().status, 200)
            connection.send(encode_request("GET", "/live", headers={"Connection": "close"}))
            self.assertEqual(connection.read_response().status, 200)
            self.assertTrue(connection.is_closed_by_server())
        with Connection(self.server.port) as connection:
            connection.send(b"GET /live HTTP/1.0\r\n\r\n")
            self.assertIn(b" 200 ", connection.read_to_end())


class HostileBodies(HostileBase):
    def post_text(self, text, path="/v1/completions"):
        return self.server.post(path, text)

    def test_json_that_is_none(self):
        rows = {
            "empty": b"", "truncated": b'{"model":"canned","prompt":"a', "text": b"hello",
            "leading zero": b'{"prompt":"a","max_tokens":01}', "nan": b'{"prompt":"a","temperature":NaN}',
            "two values": b"{}{}", "comment": b'{"prompt":"a"/*x*/}', "comma": b'{"prompt":"a",}',
            "deep": b'{"prompt":' + b"[" * 100 + b"]" * 100 + b"}",
            "deeper": b"[" * 1_000_000,
            "duplicate key": b'{"prompt":"a","prompt":"b"}',
            "duplicate key by escape": b'{"prompt":"a","\\u0070rompt":"b"}',
            "nested duplicate": b'{"prompt":"a","x":{"y":1,"y":2}}',
            "not UTF-8": b'{"prompt":"\xff\xfe"}', "overlong UTF-8": b'{"prompt":"\xc0\xaf"}',
            "lone surrogate": b'{"prompt":"\\ud800"}', "control byte": b'{"prompt":"a\nb"}',
            "beyond 64 bits": b'{"prompt":"a","seed":99999999999999999999999}',
            "NUL": b'{"prompt":"a"}\0', "UTF-16": '{"prompt":"a"}'.encode("utf-16"),
        }
        for name, body in rows.items():
            with self.subTest(name):
                self.assert_error(self.post_text(body), 400, "invalid_json")

    def test_a_body_that_is_not_an_object(self):
        for body in (b"[]", b"7", b'"a"', b"null"):
            response = self.post_text(body)
            self.assertEqual(response.status, 400)
            self.assertIn(response.json()["error"]["code"], ("invalid_json", "invalid_value"))

    def test_wrong_types_and_ranges_name_their_field(self):
        rows = [
            ("max_tokens", [0, -1, 1.5, "5", True, [], {}, 2**31, 2**63 - 1]),
            ("temperature", [-0.1, 2.1, "1", [], True, 1e300]),
            ("top_p", [-0.1, 1.1, "1", []]),
            ("n", [0, -1, 129, 1.5, "2", 10**9]),
            ("seed", [1.5, "1", [], 2**63]),
            ("stop", [7, [7], ["a"] * 5, {}, ["x" * 100_000], ["a"] * 100_000]),
            ("presence_penalty", [-2.1, 2.1, "a"]), ("frequency_penalty", [-2.1, 2.1, "a"]),
            ("logit_bias", [[], 7, {"a": 1}, {"1": 101}, {"1": "a"}, {"-1": 1}, {"99999999": 1},
                            {str(i): 1 for i in range(2000)}]),
            ("top_k", [-2, 1.5, "a"]), ("min_p", [-0.1, 1.1, "a"]),
            ("repetition_penalty", [0, -1, "a"]), ("stream", ["yes", 1, []]),
            ("stream_options", [7, [], {"include_usage": 7}]), ("stop_token_ids", [7, ["a"], [-1], [10**9]]),
            ("min_tokens", [-1, "a", 1.5]), ("ignore_eos", ["a", 1]), ("echo", ["a", 1]),
            ("model", [7, [], {}]), ("prompt", [7, {}, None, [[]], [None], ["a", 1], [[1], "a"], [1.5]]),
            ("best_of", [0, 129, "a"]), ("user", [7, []]), ("truncate_prompt_tokens", [0, "a", -5]),
        ]
        for field, values in rows:
            for value in values:
                body = {**GOOD, field: value}
                with self.subTest(field=field, value=str(value)[:40]):
                    response = self.server.post("/v1/completions", body)
                    self.assertEqual(response.status, 400, response.text[:300])
                    error = response.json()["error"]
                    self.assertIn(error["code"], ("invalid_value", "invalid_json", "unsupported_parameter",
                                                  "context_length_exceeded"), error)
                    self.assertTrue((error["param"] or "").startswith(field), error)

    def test_wrong_messages(self):
        for messages in (None, [], {}, "a", [7], [{}], [{"role": "user"}], [{"role": "king", "content": "a"}],
                         [{"role": "user", "content": 7}], [{"role": "user", "content": [{"type": "x"}]}],
                         [{"role": 7, "content": "a"}]):
            with self.subTest(str(messages)):
                response = self.server.post("/v1/chat/completions",
                                            {"model": "canned", "messages": messages, "max_tokens": 1})
                self.assertEqual(response.status, 400, response.text[:300])
                self.assertTrue(response.json()["error"]["param"].startswith("messages"), response.text)

    def test_no_prompt_and_unknown_model(self):
        response = self.server.post("/v1/chat/completions", {"model": "canned"})
        self.assert_error(response, 400, "invalid_value", "messages")
        response = self.server.post("/v1/completions", {**GOOD, "model": "gpt-none"})
        self.assert_error(response, 404, "model_not_found", "model")

    def test_token_ids_out_of_range(self):
        for ids in ([10**6], [-1], [2**32], [2**31 - 1], [1, 2, 10**9]):
            with self.subTest(ids):
                response = self.server.post("/v1/completions", {**GOOD, "prompt": ids})
                self.assertEqual(response.status, 400, response.text)
                self.assertTrue(response.json()["error"]["param"].startswith("prompt"))
                response = self.server.post("/detokenize", {"model": "canned", "tokens": ids})
                self.assertEqual(response.status, 400, response.text)

    def test_prompts_over_the_context(self):
        for prompt in ("river " * 5000, [5] * 4096, "a" * 1_000_000, " " * 1_000_000):
            response = self.server.post("/v1/completions", {**GOOD, "prompt": prompt})
            self.assert_error(response, 400, "context_length_exceeded")
        response = self.server.post("/v1/completions", {**GOOD, "max_tokens": 5000})
        self.assertEqual(response.status, 400)

    def test_products_that_explode(self):
        response = self.server.post("/v1/completions",
                                    {**GOOD, "n": 128, "max_tokens": 4000, "prompt": ["a"] * 1000})
        self.assertIn(response.status, (400, 503), response.text[:300])

    def test_objects_with_too_many_keys(self):
        body = {**GOOD, "logit_bias": {str(i): 1 for i in range(1_000_000 // 16)}}
        self.assertEqual(self.server.post("/v1/completions", body).status, 400)

    def test_unknown_fields_are_ignored(self):
        response = self.server.post("/v1/completions", {**GOOD, "x_unknown": {"a": [1]}, "metadata": {"a": "b"}})
        self.assertEqual(response.status, 200)


class SlowClients(ServerTest):
    config = config_with(http={"header_timeout": "300ms", "body_timeout": "300ms",
                               "idle_timeout": "300ms", "write_timeout": "500ms"},
                         models=[canned_model(context_tokens=16384, num_blocks=8192)])

    def test_a_slow_head(self):
        with Connection(self.server.port) as connection:
            connection.send(b"GET /live HTTP/1.1\r\nHost:")
            self.assert_error(connection.read_response(), 408, "request_timeout")
            self.assertTrue(connection.is_closed_by_server())

    def test_a_head_that_drips(self):
        # A byte now and then must not extend the limit.
        stop = threading.Event()
        with Connection(self.server.port) as connection:
            def drip():
                try:
                    for byte in b"GET /live HTTP/1.1\r\nX: " + b"a" * 1000:
                        connection.send(bytes([byte]))
                        if stop.wait(0.02):
                            return
                except OSError:
                    pass
            thread = threading.Thread(target=drip)
            thread.start()
            self.assert_error(connection.read_response(), 408, "request_timeout")
            stop.set()
            thread.join()

    def test_a_slow_body(self):
        with Connection(self.server.port) as connection:
            connection.send(raw_post(post_head("Content-Length: 100"), b"{"))
            self.assert_error(connection.read_response(), 408, "request_timeout")

    def test_an_idle_connection_is_closed(self):
        with Connection(self.server.port) as connection:
            connection.send(encode_request("GET", "/live"))
            connection.read_response()
            self.assertTrue(connection.is_closed_by_server())
        with Connection(self.server.port) as connection:
            self.assertTrue(connection.is_closed_by_server())

    def test_a_client_that_does_not_read_is_dropped_and_others_go_on(self):
        body = {**GOOD, "max_tokens": 16000, "n": 4, "stream": True}
        with Connection(self.server.port, receive_buffer=2048) as connection:
            connection.send(encode_request("POST", "/v1/completions", body))
            other = collect(self.server.port, "/v1/completions", {**GOOD, "max_tokens": 200})
            self.assertTrue(other.is_done)
            sluice_process.wait_until(lambda: self.server.journal().live == 0,
                                      "the slow client's sequences to be freed", 30)

    def test_half_close_means_gone(self):
        before = self.server.metric("sluice_tokens_accepted_total")
        with Connection(self.server.port) as connection:
            connection.send(encode_request("POST", "/v1/completions", {**GOOD, "max_tokens": 16000}))
            sluice_process.wait_until(lambda: self.server.journal().live == 1, "the request to run")
            connection.half_close()
            sluice_process.wait_until(lambda: self.server.journal().live == 0, "the slot to be free")
        self.assertLess(self.server.metric("sluice_tokens_accepted_total") - before, 16000)


class ManyConnections(ServerTest):
    def test_2000_idle_connections(self):
        wanted = 2000
        limit = raise_descriptor_limit()
        if limit < wanted + 200:
            self.skipTest(f"only {limit} descriptors are allowed here")
        idle = []
        try:
            for i in range(wanted):
                idle.append(socket.create_connection(("127.0.0.1", self.server.port), timeout=30))
                if i % 2:
                    idle[-1].sendall(b"GET /li")  # half of them stop inside a request
            stream = collect(self.server.port, "/v1/completions", {**GOOD, "max_tokens": 100})
            self.assertTrue(stream.is_done)
            self.assertGreaterEqual(self.server.metric("sluice_http_connections_open"), wanted)
        finally:
            for connection in idle:
                connection.close()
        sluice_process.wait_until(
            lambda: self.server.metric("sluice_http_connections_open") < 10, "them to be gone")


class ConnectionLimit(ServerTest):
    config = config_with(http={"connections_max": 16})

    def test_the_limit_is_answered_and_recovers(self):
        held = [Connection(self.server.port) for _ in range(16)]
        for connection in held:
            connection.send(encode_request("GET", "/live"))
            self.assertEqual(connection.read_response().status, 200)
        with Connection(self.server.port) as extra:
            extra.send(encode_request("GET", "/live"))
            try:
                self.assertEqual(extra.read_response().status, 503)
            except Closed:
                pass
        for connection in held:
            connection.close()
        def works():
            try:
                return self.server.request("GET", "/live").status == 200
            except Closed:
                return False
        sluice_process.wait_until(works, "a free place")


class Overload(ServerTest):
    config = config_with(queue={"requests_max": 4},
                         models=[canned_model(sequences_max=1, canned_step_us=20_000)])

    def test_a_full_queue_answers_503_with_retry_after(self):
        answers = []
        lock = threading.Lock()
        def one():
            answer = self.server.post("/v1/completions", {**GOOD, "max_tokens": 10})
            with lock:
                answers.append(answer)
        threads = [threading.Thread(target=one) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [a for a in answers if a.status != 200]
        self.assertTrue(refused)
        self.assertGreaterEqual(len(answers) - len(refused), 4)
        for answer in refused:
            self.assert_error(answer, 503, "overloaded")
            self.assertGreaterEqual(int(answer.headers["retry-after"]), 1)


if __name__ == "__main__":
    sys.exit(sluice_process.run_main())
