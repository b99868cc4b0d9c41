"""Trains Brook's SentencePiece tokenizer (BPE with byte fallback and ChatML control tokens) on a fixed part of the corpus."""

import argparse
import os
import pathlib
import tempfile

import sentencepiece

import corpus

VOCAB_SIZE = 2048
FIRST_DOCUMENT = 1_000_000  # far behind the drills with which the corpus begins


def train(folder, seed, documents, vocab_size):
    """Writes tokenizer.model and tokenizer.vocab into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        text = os.path.join(scratch, "corpus.txt")
        with open(text, "w", encoding="utf-8") as out:
            for number in range(FIRST_DOCUMENT, FIRST_DOCUMENT + documents):
                for piece, _ in corpus.document(seed, number):
                    if piece not in (corpus.START, corpus.END, corpus.BOS, corpus.EOS):
                        out.write("".join(line + "\n" for line in piece.split("\n") if line.strip()))
        sentencepiece.SentencePieceTrainer.train(
            input=text, model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=vocab_size,
            byte_fallback=True, character_coverage=1.0, split_digits=True, add_dummy_prefix=False,
            remove_extra_whitespaces=False, normalization_rule_name="identity", allow_whitespace_only_pieces=True,
            control_symbols=[corpus.START, corpus.END], unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1,
            max_sentence_length=16384, input_sentence_size=0, minloglevel=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder that gets tokenizer.model and tokenizer.vocab")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--documents", type=int, default=40000)
    parser.add_argument("--vocab-size", type=int, default=VOCAB_SIZE)
    args = parser.parse_args()
    train(pathlib.Path(args.out), args.seed, args.documents, args.vocab_size)


if __name__ == "__main__":
    main()
