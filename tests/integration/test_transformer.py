"""A real transformer behind the processes: its worker may die at any instruction, its kernels are
chosen once and printed, its figures on the metrics page are those of its shapes.

The model is a seeded random one; SLUICE_MODEL names a trained directory instead for the streams under
kill -9. SLUICE_KILLS (default 12) sets the rounds.
"""
import json
import os
import re
import shutil
import tempfile
import unittest

import sluice_process
import test_worker_death as worker_death
from seeded_model import llama_model, write_seeded_model
from sluice_process import ServerTest, SluiceServer, config_with

TRAINED = os.environ.get("SLUICE_MODEL")
KERNELS = ("scalar", "avx2", "avx512", "avx512vnni")


def setUpModule():
    global directory
    directory = tempfile.mkdtemp(prefix="sluice-model-")
    os.rmdir(directory)
    write_seeded_model(directory)


def tearDownModule():
    shutil.rmtree(directory)


def quick_restarts(**model):
    return config_with(
        models=[llama_model(TRAINED or directory, **model)],
        supervision={"restart_delay": "5ms", "restart_delay_max": "20ms",
                     # A step of a slow build must not look like a stall.
                     "stall_floor": f"{int(250 * sluice_process.PATIENCE)}ms"})


class Killed(worker_death.WorkerDeath):
    """The rounds of the canned model: kill -9, SIGSTOP, slow readers; 32 sampled streams each."""
    model = "llama"
    options = {"workers": 1, "threads": 1}

    @classmethod
    def setUpClass(cls):
        cls.config = quick_restarts(**cls.options)
        super().setUpClass()

    def test_6_no_stream_is_another_ones(self):
        texts = [text for result in self.calm.results for text in result.texts.values()]
        self.assertEqual(len(set(texts)), len(texts))

    def test_7_one_series_per_worker_however_often_it_died(self):
        engines = {dict(labels)["engine"] for (name, labels), _ in self.server.metrics().items()
                   if name == "vllm:num_preemptions_total"}
        self.assertEqual(engines, {str(i) for i in range(self.options["workers"])})


class KilledInTwoThreadsOfTwoWorkers(Killed):
    options = {"workers": 2, "threads": 2}
    rounds = max(2, worker_death.KILLS // 3)


class PreemptedWhileKilled(Killed):
    """So few KV blocks that sequences are preempted and computed again, in chunks."""
    options = {"workers": 1, "threads": 1, "num_blocks": 128, "block_tokens": 8,
               "step_tokens_max": 48, "sequences_max": 24}
    rounds = max(2, worker_death.KILLS // 3)

    def test_8_preemption_took_place(self):
        self.assertGreater(self.server.metric("vllm:num_preemptions_total"), 0)


class Kernels(unittest.TestCase):
    """Every path that this CPU has: printed, chosen by name, and of the same tokens, log-probabilities
    and embeddings."""

    def answers(self, kernels):
        config = config_with(models=[llama_model(directory, kernels=kernels, threads=1)])
        with SluiceServer(config) as server:
            lines = [line for line in server.log if "event=worker_up" in line]
            self.assertEqual(len(lines), 1, lines)
            name = re.search(r'executor="cpu kernels=(\w+) threads=1 kv=f32 ', lines[0])
            self.assertIsNotNone(name, lines[0])
            texts = []
            for temperature in (0, 0.9):
                response = server.post("/v1/completions", {
                    "model": "llama", "prompt": "Once there was a river", "max_tokens": 48,
                    "seed": 3, "temperature": temperature, "ignore_eos": True,
                    "echo": True, "logprobs": 2})
                self.assertEqual(response.status, 200, response.text)
                choice = response.json()["choices"][0]
                texts.append((choice["text"], choice["logprobs"]))
            response = server.post("/v1/embeddings", {
                "model": "llama", "input": ["Once there was a river", "that ran to the sea " * 40]})
            self.assertEqual(response.status, 200, response.text)
            texts.append([entry["embedding"] for entry in response.json()["data"]])
            return name.group(1), texts

    def test_chosen_once_printed_and_overridable(self):
        best, wanted = self.answers("auto")
        self.assertIn(best, KERNELS)
        self.assertEqual(self.answers("scalar"), ("scalar", wanted))
        # All that stand before the best one run here, too.
        for name in KERNELS[1:KERNELS.index(best)]:
            self.assertEqual(self.answers(name), (name, wanted))

    def test_a_path_that_is_unknown_is_refused_by_name(self):
        config = config_with(models=[llama_model(directory, kernels="neon")])
        server = SluiceServer(config)
        try:
            with self.assertRaises(AssertionError):
                server.start()
            self.assertTrue(any("kernels" in line for line in server.log), list(server.log))
        finally:
            server.close()


class Metrics(ServerTest):
    """One request alone: every figure follows from the shapes and the number of tokens."""

    @classmethod
    def setUpClass(cls):
        cls.config = config_with(models=[llama_model(directory, threads=1, prefix_cache=False)])
        super().setUpClass()

    def test_figures_are_those_of_the_shapes(self):
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            c = json.load(file)
        num_out = 40
        usage = self.server.post("/v1/completions", {
            "model": "llama", "prompt": "Once there was a river that ran to the sea. " * 3,
            "max_tokens": num_out, "temperature": 0, "ignore_eos": True}).json()["usage"]
        num_prompt = usage["prompt_tokens"]
        self.assertGreater(num_prompt, 16)
        server = self.server
        sluice_process.wait_until(lambda: server.metric("vllm:num_requests_running") == 0, "rest")

        hidden, inner, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
        head_dim = hidden // c["num_attention_heads"]
        kv_width = head_dim * c["num_key_value_heads"]
        layer_weights = hidden * (2 * hidden + 2 * kv_width + 3 * inner)
        head_weights = hidden * c["vocab_size"]
        head_bytes = 2 * hidden * -(-c["vocab_size"] // 16) * 16  # packed in panels of 16 rows
        computed = num_prompt + num_out - 1  # the last token is not fed back
        attended = computed * (computed + 1) // 2
        self.assertEqual(server.metric("sluice_engine_tokens_total", phase="prefill"), num_prompt)
        self.assertEqual(server.metric("sluice_engine_tokens_total", phase="decode"), num_out - 1)
        # Of the prompt the last layer makes K and V, and all else for its last token alone.
        unread = num_prompt - 1
        tail_weights = hidden * (hidden + 3 * inner)
        operations = (layers * (2 * layer_weights * computed + 4 * hidden * attended)
                      - 2 * tail_weights * unread - 4 * hidden * unread * (unread + 1) // 2
                      + 2 * head_weights * num_out)
        self.assertEqual(self.total("sluice_engine_operations_total"), float(f"{operations:.9g}"))
        # num_out steps read all weights (2 bytes each); a step reads or writes the KV of all
        # positions so far (4 bytes), and one row of the embedding per token.
        positions = num_prompt + sum(num_prompt + i for i in range(1, num_out))
        moved = (num_out * (2 * layers * layer_weights + head_bytes)
                 + layers * 2 * kv_width * 4 * positions + computed * hidden * 2)
        self.assertEqual(self.total("sluice_engine_bytes_moved_total"), float(f"{moved:.9g}"))

        self.assertEqual(server.metric("vllm:iteration_tokens_total_sum"), computed)
        self.assertEqual(server.metric("vllm:iteration_tokens_total_count"), num_out)
        self.assertEqual(server.metric("sluice_engine_step_seconds_count"), num_out)
        busy = server.metric("sluice_engine_busy_seconds_total")
        forward = server.metric("sluice_engine_forward_seconds_total")
        self.assertGreater(forward, 0)
        self.assertGreaterEqual(busy, forward)
        rate = server.metric("sluice_engine_tokens_per_second", phase="decode")
        self.assertAlmostEqual(rate / ((num_out - 1) / busy), 1, places=3)
        fill = server.metric("sluice_engine_batch_fill_ratio", of="sequences")
        self.assertAlmostEqual(fill, 1 / 64)
        fill = server.metric("sluice_engine_batch_fill_ratio", of="tokens")
        self.assertAlmostEqual(fill, computed / num_out / 512, places=6)
        self.check_shares(operations, moved, forward)
        # Nothing runs: no block is in use, none is half empty.
        self.assertEqual(server.metric("vllm:kv_cache_usage_perc"), 0)
        self.assertEqual(server.metric("sluice_engine_kv_fragmentation_ratio"), 0)

    def total(self, name):
        (value,) = [v for (found, _), v in self.server.metrics().items() if found == name]
        return value

    def check_shares(self, operations, moved, forward):
        for of, amount, peak in (
                ("operations", operations, "sluice_engine_peak_operations_per_second"),
                ("bandwidth", moved, "sluice_engine_peak_bytes_per_second")):
            peak = self.server.metric(peak)
            if peak == 0:  # a CPU without vectors: nothing to measure, no share
                continue
            self.assertAlmostEqual(self.server.metric("sluice_engine_peak_ratio", of=of)
                                   / (amount / forward / peak), 1, places=3)

    def test_fragmentation_and_usage_while_a_sequence_runs(self):
        stream = self.server.stream("/v1/completions", {
            "model": "llama", "prompt": "A", "max_tokens": 900, "temperature": 0,
            "ignore_eos": True})
        seen = []
        for i, _ in enumerate(stream.events()):
            if i % 40 == 5:
                page = {name: value for (name, _), value in self.server.metrics().items()}
                seen.append((page["sluice_engine_kv_fragmentation_ratio"],
                             page["vllm:kv_cache_usage_perc"]))
        stream.close()
        self.assertTrue(stream.is_done)
        running = [(waste, usage) for waste, usage in seen if usage > 0]
        self.assertTrue(running, seen)
        for waste, usage in running:
            self.assertTrue(0 <= waste < 1, seen)
            # One sequence of at most 1,024 tokens in blocks of 16, among 4,096 blocks; it wastes
            # less than two blocks.
            num_blocks = round(usage * 4096)
            self.assertAlmostEqual(usage * 4096, num_blocks, places=3)
            self.assertLessEqual(num_blocks, 64)
            self.assertLess(waste * num_blocks, 2)
        self.assertGreater(max(waste for waste, _ in running), 0)

    def test_the_page_has_each_family_once_and_bounded_labels(self):
        text = self.server.request("GET", "/metrics").text
        families = re.findall(r"^# TYPE (\S+)", text, re.M)
        self.assertEqual(len(families), len(set(families)))
        allowed = {"model_name": {"llama"}, "engine": {"0"}, "phase": {"prefill", "decode"},
                   "of": {"sequences", "tokens", "operations", "bandwidth"}}
        for (name, labels), _ in self.server.metrics().items():
            if not name.startswith("sluice_engine_"):
                continue
            labels = dict(labels)
            self.assertIn("engine", labels, name)
            for label, value in labels.items():
                if label != "le":
                    self.assertIn(value, allowed[label], (name, label))


if __name__ == "__main__":
    sluice_process.run_main()
