"""Packs the corpus into rows of 128 to 1024 tokens in which no document sees another."""

import numpy as np
import sentencepiece
import torch

import corpus

MASKED = -30000.0  # added to the score of a key that a query must not see; far below any real score, exact in bfloat16


class Encoder:
    """Pieces of a document -> token ids and a flag for each id that is learned."""

    def __init__(self, path):
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.control = {t: self.model.piece_to_id(t) for t in (corpus.START, corpus.END, corpus.BOS, corpus.EOS)}

    def encode(self, pieces):
        ids, learned = [], []
        for text, is_learned in pieces:
            new = [self.control[text]] if text in self.control else self.model.encode(text)
            ids += new
            learned += [is_learned] * len(new)
        return ids, learned

    def decode(self, ids):
        return self.model.decode([int(i) for i in ids])


class Packer:
    """Endless batches of about `tokens_per_batch` tokens; its state is a few document numbers."""

    LENGTHS = (128, 256, 512, 1024)

    def __init__(self, encoder, seed, tokens_per_batch):
        self.encoder, self.seed, self.tokens_per_batch = encoder, seed, tokens_per_batch
        self.next_number = 0
        self.waiting = {length: [] for length in self.LENGTHS}

    def state(self):
        return {"next": self.next_number, "waiting": {k: [d[0] for d in v] for k, v in self.waiting.items()}}

    def load(self, state):
        self.next_number = state["next"]
        for length, numbers in state["waiting"].items():
            self.waiting[length] = [self._document(n) for n in numbers]

    def _document(self, number):
        return (number, *self.encoder.encode(corpus.document(self.seed, number)))

    def _full_length(self):
        """The longest rows that can be filled: long documents need room beside them for the short ones that wait."""
        for length in reversed(self.LENGTHS):
            share = 1.05 if length == self.LENGTHS[0] else 0.65
            if sum(len(d[1]) for d in self.waiting[length]) >= share * self.tokens_per_batch:
                return length
        return None

    def batch(self):
        """ids, targets (-1 where nothing is learned), positions, all [rows, length], bias [rows, 1, length, length], and the tokens in it."""
        while (length := self._full_length()) is None:
            document = self._document(self.next_number)
            self.next_number += 1
            fitting = [n for n in self.LENGTHS if len(document[1]) <= n]
            if fitting:
                self.waiting[fitting[0]].append(document)
        rows = [[] for _ in range(self.tokens_per_batch // length)]
        room = [length] * len(rows)
        for source in reversed(self.LENGTHS[: self.LENGTHS.index(length) + 1]):
            self.waiting[source] = _place(self.waiting[source], rows, room)
        return (*_tensors(rows, length), sum(length - left for left in room))


def _place(documents, rows, room):
    """Puts documents into the first row with room, the longest first; returns those that found none, in their order."""
    left = []
    for document in sorted(documents, key=lambda d: -len(d[1])):
        row = next((r for r in range(len(rows)) if room[r] >= len(document[1])), None)
        if row is None:
            left.append(document)
        else:
            rows[row].append(document)
            room[row] -= len(document[1])
    return sorted(left)


def _tensors(rows, length):
    count = len(rows)
    ids = np.zeros((count, length), np.int64)
    targets = np.full((count, length), -1, np.int64)
    positions = np.zeros((count, length), np.int64)
    owner = np.full((count, length), -1, np.int64)
    for row, documents in enumerate(rows):
        at = 0
        for index, (_, tokens, learned) in enumerate(documents):
            end = at + len(tokens)
            ids[row, at:end] = tokens
            targets[row, at : end - 1] = np.where(learned[1:], tokens[1:], -1)
            positions[row, at:end] = np.arange(len(tokens))
            owner[row, at:end] = index
            at = end
    owner = torch.from_numpy(owner)
    sees = (owner[:, :, None] == owner[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    bias = torch.zeros(sees.shape).masked_fill_(~sees, MASKED).unsqueeze(1)
    return torch.from_numpy(ids), torch.from_numpy(targets), torch.from_numpy(positions), bias
