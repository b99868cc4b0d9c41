"""Expands patterns such as "[Hello|Hi] <name>" with a seeded generator and decides which phrasings are held out."""

import hashlib

_trees = {}


def _parse(text, start, closers):
    """Parses `text` from `start` up to one of `closers`; returns (parts, index of the closer)."""
    parts, literal, at = [], [], start
    while at < len(text) and text[at] not in closers:
        char = text[at]
        if char == "[":
            options, at = [], at + 1
            while True:
                option, at = _parse(text, at, "|]")
                options.append(option)
                at += 1
                if text[at - 1] == "]":
                    break
            parts += ["".join(literal), options]
            literal = []
        elif char == "<":
            end = text.index(">", at)
            parts += ["".join(literal), (text[at + 1 : end],)]
            literal, at = [], end + 1
        else:
            literal.append(char)
            at += 1
    parts.append("".join(literal))
    return parts, at


def _emit(parts, rng, slots, out):
    for part in parts:
        if type(part) is str:
            out.append(part)
        elif type(part) is tuple:
            out.append(slots[part[0]])
        else:
            _emit(part[int(rng.random() * len(part))], rng, slots, out)


def expand(pattern, rng, slots=None):
    """Replaces each [a|b|c] by one of its options (they nest) and each <name> by slots[name]."""
    tree = _trees.get(pattern)
    if tree is None:
        tree = _trees[pattern] = _parse(pattern, 0, "")[0]
    out = []
    _emit(tree, rng, slots, out)
    return "".join(out)


def fingerprint(text):
    """A number that depends on the text alone, equal on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(("brook " + text).encode()).digest()[:8], "big")


def is_held_out(text, one_in=10):
    """True for the share of phrasings that training never sees; compared without case and outer punctuation.

    One or two words are never held out: such a text is a word to learn, not a phrasing.
    """
    text = text.lower().strip(" .?!")
    return text.count(" ") > 1 and fingerprint(text) % one_in == 0


def choose(rng, items):
    """One of `items`; much cheaper than rng.choice."""
    return items[int(rng.random() * len(items))]
