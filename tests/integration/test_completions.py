"""What a client gets from the routes that generate and count: streamed and whole answers agree, usage
is exact, seeds repeat, stop strings cut where they should."""
import base64
import json
import struct
import subprocess
import tempfile

import sluice_process
from http_client import collect
from sluice_process import ServerTest


class Completions(ServerTest):
    def complete(self, **fields):
        body = {"model": "canned", "prompt": "Once there was a river", "max_tokens": 24, "seed": 7,
                "ignore_eos": True, **fields}
        response = self.server.post("/v1/completions", body)
        self.assertEqual(response.status, 200, response.text)
        return response.json()

    def chat_body(self, **fields):
        return {"model": "canned", "messages": [{"role": "system", "content": "Be brief."},
                                                {"role": "user", "content": "Why is water wet?"}],
                "max_tokens": 24, "seed": 7, "ignore_eos": True, **fields}

    def test_a_stream_has_the_text_of_the_whole_answer(self):
        for n in (1, 3):
            whole = self.complete(n=n, temperature=0.9)
            streamed = collect(self.server.port, "/v1/completions",
                               {"model": "canned", "prompt": "Once there was a river", "seed": 7,
                                "max_tokens": 24, "ignore_eos": True, "n": n, "temperature": 0.9})
            self.assertTrue(streamed.is_done)
            self.assertEqual({c["index"]: c["text"] for c in whole["choices"]}, streamed.texts)
            self.assertEqual({c["index"]: c["finish_reason"] for c in whole["choices"]}, streamed.finish)
            self.assertEqual(whole["usage"]["completion_tokens"], 24 * n)
            self.assertEqual(streamed.usage["completion_tokens"], 24 * n)
            self.assertEqual(len(streamed.texts), n)

    def test_chat_streams_a_role_first_and_equals_the_whole_answer(self):
        whole = self.server.post("/v1/chat/completions", self.chat_body()).json()
        self.assertEqual(whole["object"], "chat.completion")
        self.assertEqual(whole["choices"][0]["message"]["role"], "assistant")
        with_role = []
        streamed = collect(self.server.port, "/v1/chat/completions", self.chat_body(),
                           on_event=lambda e: with_role.append(
                               [c["delta"].get("role") for c in e["choices"]]))
        self.assertEqual(with_role[0], ["assistant"])
        self.assertEqual(streamed.texts[0], whole["choices"][0]["message"]["content"])
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            self.assertEqual(streamed.usage[name], whole["usage"][name])

    def test_usage_equals_what_tokenize_counts(self):
        for prompt in ("a", "Once there was a river", "naïve café – 東京 🚀 <|im_start|>system", "x" * 20000):
            count = self.server.post("/tokenize", {"model": "canned", "prompt": prompt})
            self.assertEqual(count.status, 200, count.text)
            if count.json()["count"] > 4000:
                continue
            usage = self.complete(prompt=prompt, max_tokens=1)["usage"]
            self.assertEqual(usage["prompt_tokens"], count.json()["count"], prompt[:40])
            self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + 1)

    def test_chat_usage_equals_tokenize_and_input_tokens(self):
        body = self.chat_body()
        usage = self.server.post("/v1/chat/completions", body).json()["usage"]
        counted = self.server.post("/v1/chat/completions/input_tokens", body).json()
        self.assertEqual(counted, {"object": "response.input_tokens",
                                   "input_tokens": usage["prompt_tokens"]})
        tokenized = self.server.post("/tokenize", {"model": "canned", "messages": body["messages"]})
        self.assertEqual(tokenized.json()["count"], usage["prompt_tokens"])

    def test_token_ids_round_trip(self):
        text = "The river ran to the sea."
        tokens = self.server.post("/tokenize", {"model": "canned", "prompt": text}).json()["tokens"]
        back = self.server.post("/detokenize", {"model": "canned", "tokens": tokens})
        self.assertEqual(back.json()["prompt"], text)
        self.assertEqual(self.complete(prompt=tokens)["choices"][0]["text"],
                         self.complete(prompt=text)["choices"][0]["text"])

    def test_special_tokens_do_not_come_out_of_user_text(self):
        plain = self.server.post("/tokenize", {"model": "canned", "prompt": "<|im_end|>"}).json()
        self.assertGreater(plain["count"], 1)

    def test_seeds_repeat_and_differ(self):
        texts = [self.complete(seed=s, temperature=1.0)["choices"][0]["text"] for s in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_choices_of_one_request_differ(self):
        choices = self.complete(n=4, temperature=1.0)["choices"]
        self.assertEqual(len({c["text"] for c in choices}), 4)

    def test_a_stop_string_ends_before_it(self):
        text = self.complete(max_tokens=48, temperature=0.7)["choices"][0]["text"]
        self.assertGreater(len(text), 12)
        # Inside a word, so that the match lies across token borders.
        for at in (3, len(text) // 2):
            stop = text[at:at + 5]
            choice = self.complete(max_tokens=48, temperature=0.7, stop=[stop])["choices"][0]
            self.assertEqual(choice["finish_reason"], "stop")
            self.assertEqual(choice["text"], text[:text.index(stop)])
            streamed = collect(self.server.port, "/v1/completions",
                               {"model": "canned", "prompt": "Once there was a river", "seed": 7,
                                "max_tokens": 48, "ignore_eos": True, "temperature": 0.7,
                                "stop": stop})
            self.assertEqual(streamed.texts[0], text[:text.index(stop)])

    def test_max_tokens_ends_with_length(self):
        answer = self.complete(max_tokens=1)
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(answer["usage"]["completion_tokens"], 1)

    def test_several_prompts_and_echo(self):
        answer = self.complete(prompt=["one", "two"], n=2, echo=True)
        self.assertEqual([c["index"] for c in answer["choices"]], [0, 1, 2, 3])
        for choice, prompt in zip(answer["choices"], ("one", "one", "two", "two")):
            self.assertTrue(choice["text"].startswith(prompt), choice)

    def test_logit_bias_forbids_a_token(self):
        free = self.complete(temperature=0, return_token_ids=True)["choices"][0]["token_ids"]
        banned = {str(token): -100 for token in set(free)}
        other = self.complete(temperature=0, return_token_ids=True, logit_bias=banned)
        self.assertFalse(set(other["choices"][0]["token_ids"]) & set(free))

    def test_logit_bias_of_100_forces_a_token(self):
        token = self.server.post("/tokenize", {"model": "canned", "prompt": "river"}).json()["tokens"][-1]
        forced = self.complete(max_tokens=4, logit_bias={str(token): 100}, temperature=0,
                               return_token_ids=True)
        self.assertEqual(forced["choices"][0]["token_ids"], [token] * 4)

    def test_a_large_prompt_takes_the_pool_and_counts_the_same(self):
        prompt = "the river ran to the sea and " * 300  # over the inline bound
        self.assertGreater(len(prompt), 8 << 10)
        before = self.server.metric("sluice_tokenize_pool_jobs_total")
        count = self.server.post("/tokenize", {"model": "canned", "prompt": prompt}).json()["count"]
        self.assertEqual(self.complete(prompt=prompt, max_tokens=1)["usage"]["prompt_tokens"], count)
        self.assertEqual(self.server.metric("sluice_tokenize_pool_jobs_total"), before + 2)

    def test_models_and_headers(self):
        listed = self.server.request("GET", "/v1/models").json()
        self.assertEqual([m["id"] for m in listed["data"]], ["canned"])
        one = self.server.request("GET", "/v1/models/canned").json()
        self.assertEqual(one["max_model_len"], 4096)
        self.assert_error(self.server.request("GET", "/v1/models/none"), 404, "model_not_found")
        answer = self.server.post("/v1/completions", {"model": "canned", "prompt": "a", "max_tokens": 1},
                                  {"x-request-id": "mine-1"})
        self.assertEqual(answer.headers["x-request-id"], "mine-1")
        replaced = self.server.request("GET", "/v1/models", headers={"x-request-id": "bad id\x7f"})
        self.assertNotEqual(replaced.headers.get("x-request-id"), "bad id\x7f")
        for name in ("openai-processing-ms", "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens",
                     "x-ratelimit-reset-tokens"):
            self.assertIn(name, answer.headers)

    def test_head_options_and_unknown(self):
        head = self.server.request("HEAD", "/v1/models")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertGreater(int(head.headers["content-length"]), 0)
        preflight = self.server.request("OPTIONS", "/v1/chat/completions", headers={
            "Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"})
        self.assertIn(preflight.status, (200, 204))
        self.assertEqual(preflight.headers["access-control-allow-origin"], "http://localhost:3000")
        foreign = self.server.request("OPTIONS", "/v1/chat/completions", headers={
            "Origin": "https://example.com", "Access-Control-Request-Method": "POST"})
        self.assertNotIn("access-control-allow-origin", foreign.headers)
        self.assert_error(self.server.request("GET", "/nowhere"), 404, "not_found")
        wrong = self.server.request("GET", "/v1/completions")
        self.assert_error(wrong, 405, "method_not_allowed")
        self.assertIn("POST", wrong.headers["allow"])

    def test_what_is_not_there_yet_is_refused_and_not_ignored(self):
        for fields in ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
                       {"response_format": {"type": "json_object"}}):
            response = self.server.post("/v1/chat/completions", self.chat_body(**fields))
            self.assert_error(response, 400, "unsupported_parameter")
        response = self.server.post("/v1/completions", {"model": "canned", "prompt": "a", "suffix": "b"})
        self.assert_error(response, 400, "unsupported_parameter")
        response = self.server.post("/v1/completions",
                                    {"model": "canned", "prompt": "a", "best_of": 2, "stream": True})
        self.assert_error(response, 400, "invalid_value")

    def test_logprobs_are_of_the_text_streamed_or_not(self):
        whole = self.server.post("/v1/chat/completions", self.chat_body(
            logprobs=True, top_logprobs=3, temperature=0.8)).json()
        shown = whole["choices"][0]["logprobs"]["content"]
        self.assertEqual(len(shown), 24)
        text = b"".join(bytes(entry["bytes"] or []) for entry in shown).decode("utf-8", "replace")
        self.assertEqual(text, whole["choices"][0]["message"]["content"])
        for entry in shown:
            self.assertEqual(len(entry["top_logprobs"]), 3)
            values = [top["logprob"] for top in entry["top_logprobs"]]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertLessEqual(values[0], 0)
            if entry["logprob"] in values:
                self.assertIn(entry["token"], [top["token"] for top in entry["top_logprobs"]])
        entries = []
        collect(self.server.port, "/v1/chat/completions",
                self.chat_body(logprobs=True, top_logprobs=3, temperature=0.8),
                on_event=lambda e: [entries.extend((c.get("logprobs") or {}).get("content", []))
                                    for c in e["choices"]])
        self.assertEqual(entries, shown)

    def test_an_echo_scores_the_prompt_as_its_tokens_would_be_when_drawn(self):
        first = self.complete(logprobs=2, temperature=0, return_token_ids=True)["choices"][0]
        ids = first["prompt_token_ids"] + first["token_ids"]
        for stream in (False, True):
            body = {"model": "canned", "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 2}
            if stream:
                lists = {}
                result = collect(self.server.port, "/v1/completions", body, on_event=lambda e: [
                    lists.setdefault(name, []).extend(values or ())
                    for c in e["choices"] for name, values in (c["logprobs"] or {}).items()])
                self.assertTrue(result.is_done)
                usage = result.usage
            else:
                scored = self.server.post("/v1/completions", body).json()
                lists, usage = scored["choices"][0]["logprobs"], scored["usage"]
                self.assertEqual(scored["choices"][0]["finish_reason"], "length")
            self.assertEqual((usage["prompt_tokens"], usage["completion_tokens"]), (len(ids), 0))
            self.assertEqual(len(lists["tokens"]), len(ids))
            self.assertIsNone(lists["token_logprobs"][0])
            for name in ("tokens", "token_logprobs", "top_logprobs"):
                self.assertEqual(lists[name][-24:], first["logprobs"][name], name)

    def test_best_of_answers_the_likeliest_of_those_that_n_answers(self):
        fields = {"temperature": 1.2, "logprobs": 0}
        all_of_them = self.complete(n=5, **fields)["choices"]
        mean = {choice["text"]: sum(choice["logprobs"]["token_logprobs"]) / 24 for choice in all_of_them}
        best = sorted(mean, key=mean.get, reverse=True)
        answer = self.complete(n=2, best_of=5, **fields)
        self.assertEqual([choice["text"] for choice in answer["choices"]], best[:2])
        self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1])
        self.assertEqual(answer["usage"]["completion_tokens"], 5 * 24)

    def test_embeddings_are_of_length_one_whatever_their_batch(self):
        inputs = ["Once there was a river", "Why is water wet?", "a"]
        body = {"model": "canned", "input": inputs}
        answer = self.server.post("/v1/embeddings", body).json()
        self.assertEqual(answer["object"], "list")
        vectors = [entry["embedding"] for entry in answer["data"]]
        self.assertEqual([entry["index"] for entry in answer["data"]], [0, 1, 2])
        for text, vector in zip(inputs, vectors):
            self.assertAlmostEqual(sum(x * x for x in vector), 1, places=5)
            alone = self.server.post("/v1/embeddings", {"model": "canned", "input": text}).json()
            self.assertEqual(alone["data"][0]["embedding"], vector)
            count = self.server.post("/tokenize", {"model": "canned", "prompt": text}).json()
            self.assertEqual(alone["usage"], {"prompt_tokens": count["count"],
                                              "total_tokens": count["count"]})
            by_ids = self.server.post("/v1/embeddings", {"model": "canned", "input": count["tokens"]})
            self.assertEqual(by_ids.json()["data"][0]["embedding"], vector)
        self.assertEqual(len({tuple(vector) for vector in vectors}), 3)
        packed = self.server.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json()
        for entry, vector in zip(packed["data"], vectors):
            floats = struct.unpack(f"<{len(vector)}f", base64.b64decode(entry["embedding"]))
            self.assertEqual([struct.unpack("<f", struct.pack("<f", x))[0] for x in vector],
                             list(floats))
        refused = self.server.post("/v1/embeddings", {**body, "dimensions": 7})
        self.assert_error(refused, 400, "invalid_value")
        billed = self.server.metric("vllm:prompt_tokens_total")
        many = self.server.post("/v1/embeddings", {"model": "canned", "input": ["river"] * 300}).json()
        self.assertEqual(len(many["data"]), 300)
        self.assertEqual(self.server.metric("vllm:prompt_tokens_total"),
                         billed + many["usage"]["prompt_tokens"])

    def bench(self, *arguments, file):
        """Exit code, report (None without one) and what it says on standard error."""
        with tempfile.NamedTemporaryFile("w") as replayed:
            replayed.write(file)
            replayed.flush()
            run = subprocess.run(
                [sluice_process.BIN / "sluice", "bench", "--url", f"http://127.0.0.1:{self.server.port}/v1",
                 "--model", "canned", "--quiet", "--json", "-",
                 *[replayed.name if a == "FILE" else a for a in arguments]],
                capture_output=True, text=True, timeout=60, check=False)
        return run.returncode, json.loads(run.stdout) if run.stdout else None, run.stderr

    def test_the_load_client_replays_a_trace(self):
        rows = [(0, 30, 3), (100, 700, 5), (1500, 10, 0)]
        csv = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
            f"2023-11-16 18:15:{46 + at // 1000}.{at % 1000:03}0000,{p},{o}\n" for at, p, o in rows)
        jsonl = "".join(json.dumps({"timestamp": at, "input_length": p, "output_length": o,
                                    "hash_ids": list(range(-(-p // 512)))}) + "\n" for at, p, o in rows)
        for file in (csv, jsonl):
            code, report, errors = self.bench("--trace", "FILE", "--trace-speed", "10", "--stream", "--extra",
                                              '{"ignore_eos": true}', file=file)
            self.assertEqual((code, errors), (0, ""))
            self.assertEqual((report["loop"], report["requests"]["ok"]), ("trace", 3))
            self.assertEqual(report["window"]["completion_tokens"], 3 + 5 + 1)
            self.assertGreaterEqual(report["wall_seconds"], 0.15)
        code, report, _ = self.bench("--trace", "FILE", "-n", "1", file=csv)
        self.assertEqual((code, report["requests"]["started"]), (0, 1))

    def test_the_load_client_sends_a_dataset(self):
        lines = [{"prompt": "Once there was a river", "max_tokens": 2}, {"prompt": [1, 300, 301]},
                 {"turns": ["Why is water wet?", "Really?"], "category": "x"}]
        file = "".join(json.dumps(line) + "\n" for line in lines)
        code, report, errors = self.bench("--dataset", "FILE", "-n", "6", "--warmup", "0", "--max-tokens", "4",
                                          "--extra", '{"ignore_eos": true}', file=file)
        self.assertEqual((code, errors), (0, ""))
        self.assertEqual(report["window"]["completion_tokens"], 2 * (2 + 4 + 4))
        chats = json.dumps({"messages": [{"role": "user", "content": "hi"}]}) + "\n"
        code, report, _ = self.bench("--dataset", "FILE", "-n", "2", "--warmup", "0", "--endpoint", "chat", file=chats)
        self.assertEqual((code, report["requests"]["ok"]), (0, 2))

    def test_the_load_client_refuses_bad_files_with_the_line(self):
        code, report, errors = self.bench("--trace", "FILE", file="TIMESTAMP,ContextTokens,GeneratedTokens\n1,2\n")
        self.assertEqual((code, report), (2, None))
        self.assertRegex(errors, r"^sluice bench: \S+: line 2: too few")
        code, _, errors = self.bench("--dataset", "FILE", file='{"prompt": "x"}\n{"prompt": 7}\n')
        self.assertEqual(code, 2)
        self.assertRegex(errors, r"line 2: the prompt is no text")
        for other in (["--rate", "5"], ["--dataset", "FILE"], ["--max-tokens", "3"], ["--prompt", "x"]):
            self.assertEqual(self.bench("--trace", "FILE", *other, file="")[0], 2)


class KeepAlive(ServerTest):
    config = sluice_process.config_with(
        http={"stream_commit": "50ms"},
        models=[sluice_process.canned_model(canned_step_us=400_000)])

    def test_a_stream_without_a_token_yet_sends_comments(self):
        stream = self.server.stream("/v1/completions",
                                    {"model": "canned", "prompt": "a", "max_tokens": 1})
        stream.open()
        self.assertEqual(stream.status, 200)
        self.assertTrue(stream.headers["content-type"].startswith("text/event-stream"))
        self.assertEqual(stream.headers["cache-control"], "no-cache")
        first = next(stream.connection.body_pieces(stream.headers))
        self.assertTrue(first.startswith(b":"), first)
        self.assertTrue(list(stream.events()))
        self.assertTrue(stream.is_done)
        stream.close()

    def test_a_client_that_leaves_frees_its_sequence(self):
        prompt = {"model": "canned", "prompt": "a", "max_tokens": 1000}
        for path, body in (("/v1/completions", {**prompt, "stream": True}),
                           ("/v1/completions", {**prompt, "stream": False}),
                           # Steps of 512 tokens: eight of them.
                           ("/v1/embeddings", {"model": "canned", "input": [[17] * 4000] * 3})):
            from http_client import Connection, encode_request
            with Connection(self.server.port) as connection:
                connection.send(encode_request("POST", path, body))
                sluice_process.wait_until(
                    lambda: self.server.metric("vllm:num_requests_running") >= 1, "the request to run")
            sluice_process.wait_until(lambda: self.server.journal().live == 0, "the journal's slot")
            sluice_process.wait_until(
                lambda: self.server.metric("vllm:num_requests_running") == 0, "an idle worker")


if __name__ == "__main__":
    sluice_process.run_main()
