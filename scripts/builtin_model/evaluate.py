"""Measures Brook on phrasings and openings that training never saw; prints a table and writes the figures as JSON."""

import argparse
import json
import pathlib
import random
import re

import torch

import corpus
import small_talk
import stories
import story_words
import tool_talk
from generate import find_tokenizer, generate, load, simulate_int8
from grammar import is_held_out
from sluice_facts import BY_NAME, TOPICS

SEED = 20_240_601
SHORT_ANSWER_TOKENS = 120
TARGETS = {"sluice_right": 0.95, "sluice_ends": 0.98, "sluice_short": 1.0, "chat_ends": 0.98, "chat_short": 1.0, "story_ends": 0.95, "story_names": 0.95, "story_no_repeat": 0.95, "story_distinct3": 0.6}


class Subject:
    """A model with its tokenizer, asked in batches."""

    def __init__(self, model, encoder):
        self.model, self.encoder = model, encoder
        self.stops = {encoder.control[corpus.END], encoder.control[corpus.EOS]}

    def answer(self, chats, max_tokens=200):
        """For each list of (role, text) messages: (text, ended by itself, tokens)."""
        prompts = []
        for messages in chats:
            pieces = corpus.chat_pieces(messages) + [(corpus.START, False), ("assistant\n", False)]
            prompts.append(self.encoder.encode(pieces)[0])
        return [(self.encoder.decode(ids), ended, len(ids)) for ids, ended in generate(self.model, prompts, self.stops, max_tokens)]

    def tell(self, openings, temperature, seed, max_tokens=320):
        prompts = [self.encoder.encode([(corpus.BOS, False), (o, True)])[0] for o in openings]
        return [(self.encoder.decode(ids), ended) for ids, ended in generate(self.model, prompts, self.stops, max_tokens, temperature, seed, batch=50)]


def share(flags):
    flags = list(flags)
    return round(sum(flags) / max(1, len(flags)), 4)


def is_right(check, answer):
    """check is a text, or groups of alternatives of which each group must be met."""
    low = answer.lower()
    if isinstance(check, str):
        return check.lower() in low
    return all(any(word in low for word in group) for group in check)


def sluice_figures(subject, per_topic):
    """Questions about Sluice: (figures, failures)."""
    rng = random.Random(SEED)
    cases = []
    for topic in TOPICS:
        for split, count in (("phrasing", per_topic), ("wording", 2 if corpus.RESERVED[topic.name] else 0)):
            asked = set()
            for _ in range(20 * count):
                text = corpus.sluice_question(rng, topic, split)
                if text and text not in asked and len(asked) < count:
                    asked.add(text)
                    cases.append((split, topic, text, corpus.noisy(rng, text) if rng.random() < 0.4 else text))
    answers = subject.answer([[("user", text)] for _, _, _, text in cases])
    right = [is_right(topic.check, a) and ended for (_, topic, _, _), (a, ended, _) in zip(cases, answers)]
    of = lambda split: share(r for r, c in zip(right, cases) if c[0] == split)
    figures = {"sluice_questions": len(cases), "sluice_right": of("phrasing"), "sluice_right_new_wording": of("wording"),
               "sluice_ends": share(a[1] for a in answers), "sluice_short": share(a[2] <= SHORT_ANSWER_TOKENS for a in answers)}
    failures = [(c[0], c[1].name, c[3], a[0]) for c, a, r in zip(cases, answers, right) if not r]
    return figures, failures


def _held(rng, make):
    for _ in range(5000):
        exchange = make(rng)
        if is_held_out(exchange[0]):
            return exchange
    raise RuntimeError("no held-out phrasing found")


def chat_cases(rng, count):
    """(kind, messages, check) of held-out conversations whose last user turn is to be answered."""
    makers = {"chat": small_talk.chat_exchange, "fact": small_talk.fact_exchange, "sum": small_talk.sum_exchange, "unknown": small_talk.unknown_exchange,
              "json": tool_talk.json_exchange, "echo": small_talk.echo_exchange}
    cases = []
    for kind, make in makers.items():
        for index in range(count):
            history = []
            for _ in range(rng.randrange(0, 3) if index % 2 else 0):
                before = corpus.one_exchange(rng)
                history += [("user", before[0]), ("assistant", before[1])]
            exchange = _held(rng, make)
            cases.append((kind, history + [("user", exchange[0])], exchange[3]))
    while sum(c[0] == "memory" for c in cases) < count:
        turns = small_talk.memory_exchanges(rng, corpus.one_exchange)
        if is_held_out(turns[0][0]):
            history = [m for t in turns[:-1] for m in (("user", t[0]), ("assistant", t[1]))]
            cases.append(("memory", history + [("user", turns[-1][0])], turns[-1][3]))
    while sum(c[0] == "system" for c in cases) < count:
        system, brief, tone, name = corpus.style(rng)
        if not system or not (brief or tone or name) or not is_held_out(system + str(len(cases) % 3), 3):
            continue
        if name:
            cases.append(("system", [("system", system), ("user", rng.choice(corpus.NAME_ASKS[:8]))], name))
        else:
            exchange = corpus.sluice_exchange(rng, "phrasing")
            wanted = corpus.dressed(exchange, brief, tone, name)
            cases.append(("system", [("system", system), ("user", exchange[0])], wanted[: max(12, len(tone) + 8)] if tone else wanted))
    while sum(c[0] == "tools" for c in cases) < count:
        system, turns = tool_talk.tool_chat(rng, corpus.one_exchange)
        at = next((i for i, (role, text) in enumerate(turns) if role == "assistant" and text.startswith("<tool_call>")), None)
        if at is not None and is_held_out(turns[at - 1][1], 4):
            cases.append(("tools", [("system", system)] + turns[:at], turns[at][1]))
    return cases


def chat_figures(subject, count):
    rng = random.Random(SEED + 1)
    cases = chat_cases(rng, count)
    answers = subject.answer([c[1] for c in cases])
    figures = {"chats": len(cases), "chat_ends": share(a[1] for a in answers), "chat_short": share(a[2] <= SHORT_ANSWER_TOKENS for a in answers)}
    right = [is_right(c[2], a[0]) for c, a in zip(cases, answers)]
    for kind in dict.fromkeys(c[0] for c in cases):
        figures["chat_right_" + kind] = share(r for r, c in zip(right, cases) if c[0] == kind)
    failures = [(c[0], c[1][-1][1], a[0], c[2]) for c, a, r in zip(cases, answers, right) if not r or not a[1]]
    return figures, failures


KINDS = set(story_words.HEROES + stories.ALL_HELPERS + story_words.TINY + ["girl", "boy"])
_KIND = "|".join(sorted(KINDS, key=len, reverse=True))
_NAME = "|".join(sorted(small_talk.NAMES, key=len, reverse=True))
_NAMED = (re.compile(rf"\b(?P<n>{_NAME}) the (?P<k>{_KIND})\b"), re.compile(rf"\b(?P<n>{_NAME}), an? (?:\w+ )?(?P<k>{_KIND})\b"), re.compile(rf"\b(?P<k>{_KIND}) (?:named|called) (?P<n>{_NAME})\b"))


def story_faults(opening, rest, slots):
    """What is inconsistent in a story: names, kinds of animals, pronouns, repeated sentences."""
    text = opening + " " + rest
    faults = set()
    if len(set(re.findall(rf"\b({_NAME})\b", text))) > 2:
        faults.add("names")
    kinds = {slots["H"]: slots["h"]}
    for pattern in _NAMED:
        for match in pattern.finditer(text):
            if kinds.setdefault(match["n"], match["k"]) != match["k"]:
                faults.add("kinds")
    introduced = set(kinds.values()) | set(re.findall(rf"\b(?:an?|the big) (?:\w+ )?({_KIND})\b", text))
    if any(kind not in introduced for kind in re.findall(rf"\bthe (?:small )?({_KIND})\b", rest)):
        faults.add("kinds")
    other = "he" if slots["p"] == "she" else "she"
    if re.search(rf"\b{other}\b", re.sub(r'"[^"]*"', "", rest), re.IGNORECASE):
        faults.add("pronouns")
    sentences = [s.strip().lower() for s in re.split(r"(?<=[.!?])\s+", text) if len(s) > 3]
    if len(set(sentences)) < len(sentences):
        faults.add("repeats")
    return faults


def story_figures(subject, count, temperature=0.8):
    rng = random.Random(SEED + 2)
    openings = [stories.story(rng, held_out=True) for _ in range(count)]
    told = subject.tell([o[0] for o in openings], temperature, SEED)
    faults = [story_faults(o[0], rest, o[2]) for o, (rest, _) in zip(openings, told)]
    grams, total = set(), 0
    for rest, _ in told:
        words = re.findall(r"[\w'-]+", rest.lower())
        for at in range(len(words) - 2):
            grams.add(tuple(words[at : at + 3]))
            total += 1
    figures = {"stories": count, "story_ends": share(ended for _, ended in told), "story_names": share(not f & {"names", "kinds", "pronouns"} for f in faults),
               "story_no_repeat": share("repeats" not in f for f in faults), "story_distinct3": round(len(grams) / max(1, total), 4),
               "story_words": round(total / count + 2, 1)}
    texts = [{"opening": o[0], "rest": rest.strip(), "ended": ended, "faults": sorted(f)} for o, (rest, ended), f in zip(openings, told, faults)]
    return figures, texts


def measure(subject, args):
    """All figures of one model, with the texts behind them."""
    figures, texts = {}, {}
    for name, make, size in (("sluice", sluice_figures, args.per_topic), ("chat", chat_figures, args.chats), ("story", story_figures, args.stories)):
        part, texts[name] = make(subject, size)
        figures.update(part)
    return figures, texts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--tokenizer", help="tokenizer.model; by default beside the checkpoint")
    parser.add_argument("--weights", choices=("average", "raw"), default="average")
    parser.add_argument("--per-topic", type=int, default=4, help="held-out phrasings of each topic")
    parser.add_argument("--chats", type=int, default=40, help="held-out conversations of each kind")
    parser.add_argument("--stories", type=int, default=100)
    parser.add_argument("--no-int8", action="store_true", help="leave out the simulation of 8-bit rounding")
    parser.add_argument("--out", help="JSON file for figures and texts")
    parser.add_argument("--show", type=int, default=0, help="print so many failures and stories")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, about = load(args.checkpoint, args.weights)
    encoder = find_tokenizer(args.checkpoint, args.tokenizer)
    figures, texts = measure(Subject(model, encoder), args)
    rounded = None
    if not args.no_int8:
        simulate_int8(model)
        rounded, _ = measure(Subject(model, encoder), args)
    print(f"checkpoint {args.checkpoint}: step {about['step']}, {about['tokens'] / 1e6:.2f} M tokens, {about['seconds'] / 3600:.2f} h of one thread, {args.weights} weights")
    for name, value in figures.items():
        target = TARGETS.get(name)
        verdict = "" if target is None else f"target {target}: " + ("reached" if value >= target else "MISSED")
        print(f"{name:28} {value:>9} {'' if rounded is None else 'int8 ' + str(rounded[name]):14} {verdict}")
    for name in texts if args.show else ():
        print("\n== " + name)
        for item in texts[name][: args.show]:
            print("  ", " | ".join(str(v) for v in (item.values() if isinstance(item, dict) else item)))
    if args.out:
        reached = all(figures[name] >= target for name, target in TARGETS.items())
        if rounded:
            reached = reached and all(rounded[name] >= figures[name] - 0.01 for name in TARGETS)
        result = {"about": about, "figures": figures, "int8": rounded, "targets": TARGETS, "reached": reached, "texts": texts}
        pathlib.Path(args.out).write_text(json.dumps(result, indent=1, ensure_ascii=False, default=str), encoding="utf-8")


if __name__ == "__main__":
    main()
