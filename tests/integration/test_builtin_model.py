"""The built-in model as a newcomer meets it: `sluice serve` without a configuration, the curl of the
ready line and of the README as they stand, and greedy answers against a golden file.

SLUICE_UPDATE_GOLDEN=1 writes the golden file anew: review the difference."""
import json
import math
import os
import re
import subprocess
import tempfile
import unittest

from http_client import collect
from sluice_process import BIN, SOURCE, SluiceServer, run_main

GOLDEN = SOURCE / "tests" / "golden" / "brook_answers.json"


class PlainServer(SluiceServer):
    """Nothing configured but where it keeps its state and that the port is free."""

    def command(self):
        return [str(BIN / "sluice"), "serve", "--port", "0", "--state-dir", str(self.state_dir)]


class BuiltInModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = PlainServer().start()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.server.close()

    def answer_of(self, shell_command):
        run = subprocess.run(["/bin/sh", "-c", shell_command.replace("curl ", "curl -s --max-time 60 ", 1)],
                             capture_output=True, text=True, check=True)
        return json.loads(run.stdout)

    def check_first_answer(self, answer):
        self.assertEqual(answer["model"], "brook")
        self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
        self.assertIn("gateway", answer["choices"][0]["message"]["content"])

    def test_it_is_the_default_and_says_so(self):
        self.assertRegex(self.server.ready_line, r"  model brook  1 worker$")
        models = self.server.request("GET", "/v1/models").json()["data"]
        self.assertEqual([(m["id"], m["max_model_len"]) for m in models], [("brook", 1024)])

    def test_the_curl_of_the_ready_line(self):
        curl = next(line for line in self.server.log if line.startswith("curl "))
        self.check_first_answer(self.answer_of(curl))

    def test_the_curl_of_the_readme(self):
        readme = (SOURCE / "README.md").read_text(encoding="utf-8")
        curl = re.search(r"^curl http://127\.0\.0\.1:8080/v1/chat/completions .*?}'$", readme, re.S | re.M)
        self.check_first_answer(self.answer_of(curl.group(0).replace(":8080", f":{self.server.port}")))

    def test_a_stream_is_the_whole_answer_in_pieces(self):
        body = {"model": "brook", "messages": [{"role": "user", "content": "Tell me a story."}],
                "temperature": 0.8, "seed": 5}
        whole = self.server.post("/v1/chat/completions", body).json()
        stream = collect(self.server.port, "/v1/chat/completions", body)
        self.assertTrue(stream.is_done)
        self.assertEqual(stream.texts[0], whole["choices"][0]["message"]["content"])
        self.assertEqual(stream.usage["completion_tokens"], whole["usage"]["completion_tokens"])

    def test_greedy_answers_are_those_of_the_golden_file(self):
        golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
        for case in golden:
            body = {"model": "brook", "messages": case["messages"], "temperature": 0}
            answer = self.server.post("/v1/chat/completions", body).json()["choices"][0]
            if os.environ.get("SLUICE_UPDATE_GOLDEN") == "1":
                case["answer"] = answer["message"]["content"]
            with self.subTest(case["messages"][-1]["content"]):
                self.assertEqual(answer["message"]["content"], case["answer"])
                self.assertEqual(answer["finish_reason"], "stop")
        if os.environ.get("SLUICE_UPDATE_GOLDEN") == "1":
            GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def test_perplexity_is_what_echoed_logprobs_say(self):
        text = (SOURCE / "models" / "brook" / "README.md").read_text(encoding="utf-8")
        ids = self.server.post("/tokenize", {"model": "brook", "prompt": text}).json()["tokens"]
        context, chunks, scored = 64, 3, []
        for begin in range(0, chunks * context, context):
            chunk = [ids[0], *ids[begin + 1:begin + context]]  # the first is the beginning of the text
            answer = self.server.post("/v1/completions", {"model": "brook", "prompt": chunk, "max_tokens": 0,
                                                          "echo": True, "logprobs": 0}).json()
            scored += answer["choices"][0]["logprobs"]["token_logprobs"][context // 2 + 1:]
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            run = subprocess.run([BIN / "sluice", "perplexity", "--model", SOURCE / "models" / "brook", "--file",
                                  file.name, "--context", str(context), "--chunks", str(chunks)],
                                 capture_output=True, text=True, check=True)
        self.assertRegex(run.stdout, rf"(?m)^scored +{len(scored)} tokens$")
        got = float(re.search(r"(?m)^perplexity +(\S+)", run.stdout).group(1))
        wanted = math.exp(-sum(scored) / len(scored))
        self.assertAlmostEqual(got / wanted, 1, delta=1e-4)

    def test_perplexity_refuses_wrong_use_and_short_texts(self):
        def run(*arguments):
            return subprocess.run([BIN / "sluice", "perplexity", *map(str, arguments)], capture_output=True,
                                  text=True, check=False)
        brook = SOURCE / "models" / "brook"
        for bad in ([], ["--model", brook], ["--model", brook, "--file"], ["--model", brook, "--file", "x", "--no", "1"],
                    ["--model", brook, "--file", "x", "--context", "3"], ["--model", brook, "--file", "x", "--context", "9x"],
                    ["--model", brook, "--file", "x", "--kv-type", "f8"]):
            done = run(*bad)
            self.assertEqual((done.returncode, done.stderr[:6]), (2, "usage:"), bad)
        for bad, reason in (([brook, "/dev/null"], "0 tokens|1 tokens"), ([brook, "/nonexistent"], "cannot be read"),
                            (["/nonexistent", __file__], "nonexistent"),
                            ([brook, __file__, "--context", 2048], "context is 1024 tokens")):
            done = run("--model", bad[0], "--file", bad[1], *bad[2:])
            self.assertEqual(done.returncode, 1, bad)
            self.assertRegex(done.stderr, "^error: .*(" + reason + ")")


if __name__ == "__main__":
    run_main()
