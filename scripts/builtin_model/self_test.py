"""Tests of the scripts that make Brook, on tiny settings: determinism, held-out texts, packing, exact resuming, export."""

import argparse
import json
import pathlib
import random
import struct
import tempfile
import unittest

import torch

import corpus
import evaluate
import export
import stories
import train
import train_tokenizer
from batches import Encoder, Packer
from generate import generate, round_blocks
from model import Brook, Shape
from sluice_facts import BY_NAME, FOLLOW_UPS, TOPICS

TINY = {"dim": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 32}


def normal(text):
    return text.lower().strip(" .?!")


class CorpusTest(unittest.TestCase):
    def test_a_document_depends_on_seed_and_number_alone(self):
        self.assertEqual(corpus.document(5, 77), corpus.document(5, 77))
        self.assertNotEqual([corpus.document(5, n) for n in range(9)], [corpus.document(6, n) for n in range(9)])

    def test_answers_hold_the_words_that_they_are_checked_for(self):
        for topic in TOPICS:
            self.assertTrue(evaluate.is_right(topic.check, topic.full), topic.name)
            self.assertTrue(evaluate.is_right(topic.check[:1], topic.brief), topic.name)

    def test_follow_ups_name_known_topics(self):
        for source, _, target in FOLLOW_UPS:
            self.assertIn(source, BY_NAME)
            self.assertIn(target, BY_NAME)

    def test_held_out_questions_are_in_no_training_document(self):
        rng = random.Random(3)
        held = {normal(corpus.sluice_question(rng, t, "phrasing") or "") for t in TOPICS for _ in range(3)} - {""}
        seen = {normal(text) for n in range(corpus.FIRST_DOCUMENTS, corpus.FIRST_DOCUMENTS + 8000) for text, learned in corpus.document(1, n) if not learned}
        self.assertGreater(len(held), 200)
        self.assertFalse(held & seen)

    def test_stories_of_the_grammar_have_no_faults(self):
        rng = random.Random(4)
        for _ in range(1000):
            opening, rest, slots = stories.story(rng)
            self.assertFalse(evaluate.story_faults(opening, " " + rest, slots), opening + " " + rest)


class TrainingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.scratch.name)
        train_tokenizer.train(cls.folder / "tokenizer", seed=7, documents=600, vocab_size=512)
        cls.encoder = Encoder(cls.folder / "tokenizer" / "tokenizer.model")
        torch.set_num_threads(1)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def run_of(self, name):
        (self.folder / name).mkdir(exist_ok=True)
        args = argparse.Namespace(dir=str(self.folder / name), tokenizer=str(self.folder / "tokenizer" / "tokenizer.model"), seed=1, batch_tokens=1024, tokens=1e6,
                                  decay_share=0.2, precision="f32", matrix_rate=0.02, other_rate=0.003, vocab_size=512, **TINY)
        return train.Run(args)

    def test_control_tokens_come_from_no_text(self):
        ids = self.encoder.model.encode("a <|im_end|> b <|im_start|> <s> </s>")
        self.assertFalse(set(ids) & set(self.encoder.control.values()))

    def test_text_survives_the_tokenizer(self):
        for text in ("How are you?\nFine.", "Gr\u00fc\u00dfe \u2603 \U0001f600", "  two  spaces ", '{"a": [1, 2]}'):
            self.assertEqual(self.encoder.decode(self.encoder.model.encode(text)), text)

    def test_packed_documents_give_the_same_hidden_states_as_alone(self):
        packer = Packer(self.encoder, 1, 1024)
        ids, targets, positions, bias, count = packer.batch()
        self.assertGreater(count, 0.8 * 1024)
        model = Brook(Shape(vocab_size=512, **TINY))
        packed = model.hidden(ids, positions, bias)
        starts = (positions[0] == 0).nonzero().flatten().tolist()
        at, end = starts[1], starts[2]
        alone = ids[:1, at:end]
        causal = torch.full((end - at, end - at), -30000.0).triu(1).view(1, 1, end - at, end - at)
        expected = model.hidden(alone, torch.arange(end - at).view(1, -1), causal)
        self.assertLess((packed[0, at:end] - expected[0]).abs().max().item(), 1e-4)

    def test_a_resumed_run_equals_an_unbroken_one(self):
        whole, first = self.run_of("whole"), self.run_of("parts")
        losses = [whole.train_step() for _ in range(6)]
        parts = [first.train_step() for _ in range(3)]
        first.save()
        second = self.run_of("parts")
        second.load(second.folder / "checkpoint.pt")
        self.assertEqual(losses, parts + [second.train_step() for _ in range(3)])
        self.assertTrue(all(torch.equal(a, b) for a, b in zip(whole.average, second.average)))

    def test_cached_batched_generation_equals_the_full_computation(self):
        model = Brook(Shape(vocab_size=512, **TINY))
        prompts = [[5, 6, 7, 8, 9], [11, 12], [13, 14, 15]]
        for prompt, (made, _) in zip(prompts, generate(model, prompts, {2}, 6)):
            ids = list(prompt)
            for token in made:
                size = len(ids)
                causal = torch.full((size, size), -30000.0).triu(1).view(1, 1, size, size)
                hidden = model.hidden(torch.tensor([ids]), torch.arange(size).view(1, -1), causal)
                self.assertEqual(int(model.logits(hidden[0, -1]).argmax()), token)
                ids.append(token)

    def test_rounding_to_eight_bits_errs_by_half_a_step_at_most(self):
        x = torch.randn(4, 64)
        step = x.view(4, 2, 32).abs().amax(-1, keepdim=True) / 127
        error = (round_blocks(x) - x).view(4, 2, 32).abs()
        self.assertTrue(bool((error <= 0.5001 * step).all()))

    def test_the_weights_file_can_be_read_back(self):
        model = Brook(Shape(vocab_size=512, **TINY))
        path = self.folder / "model.safetensors"
        export.write_safetensors(path, export.hugging_face_tensors(model))
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        self.assertEqual((8 + size) % 8, 0)
        for name, tensor in export.hugging_face_tensors(model):
            begin, end = header[name]["data_offsets"]
            read = torch.frombuffer(bytearray(data[8 + size + begin : 8 + size + end]), dtype=torch.int16).view(torch.bfloat16)
            self.assertTrue(torch.equal(read.view(header[name]["shape"]), tensor.bfloat16()))


if __name__ == "__main__":
    unittest.main()
