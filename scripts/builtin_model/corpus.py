"""Makes Brook's training text: seeded documents without end, the same for the same seed and number on every machine."""

import argparse
import hashlib
import pathlib
import random
import re
import sys

import small_talk
import stories
import tool_talk
from grammar import choose, expand, fingerprint, is_held_out
from sluice_facts import BY_NAME, DO_FRAMES, FOLLOW_UPS, TOPICS, WHAT_FRAMES

# A document is a list of (text, is_learned) pieces; these texts stand for control tokens.
START, END, BOS, EOS = "<|im_start|>", "<|im_end|>", "<s>", "</s>"

ASSISTANT_NAMES = small_talk.NAMES + "Robin Sparky Ada Zip Echo Nova Juno Atlas Bolt Pixel Willow Sage Cedar Orion Comet".split()
PLAIN_SYSTEMS = ("You are a helpful assistant.", "You are Brook.", "You are a friendly assistant.", "You are Brook, a small model.", "You are an assistant.", "Help the user.", "Answer the questions of the user.", "You are a helpful AI.", "You answer questions about Sluice.", "You are Brook, the model in Sluice.")
NAME_SYSTEMS = ("Your name is <n>.", "You are <n>.", "You are called <n>.", "You are <n>, a helpful assistant.", "Your name is <n>. Be helpful.", "You are an assistant named <n>.", "You are a helpful assistant called <n>.", "Call yourself <n>.")
BRIEF_SYSTEMS = ("Be brief.", "Answer briefly.", "Keep it short.", "Give short answers.", "Answer in as few words as you can.", "Be concise.", "Use few words.", "Answer shortly.", "Short answers only.", "You give short answers.", "Be terse.", "Answer in one short sentence.")
TONES = ("Start every answer with <t>", "Begin each answer with <t>", "Always start with <t>", "The first word of each answer is <t>")
TONE_WORDS = ("Ahoy!", "Hooray!", "Indeed.", "Certainly.", "Gladly!", "Well,", "Arr!", "Of course.", "Yay!", "My dear friend,", "Sir,", "Wow!", "Listen:", "Hmm,", "Happy to help!", "Good question!", "Beep!", "Ha!")
NAMED_TONES = ((("Talk like a pirate.", "You are a pirate.", "Speak like a pirate.", "Answer as a pirate."), "Arr!"), (("Be cheerful.", "Be very cheerful.", "You are cheerful.", "Answer in a cheerful tone.", "Be happy and friendly.", "Sound excited."), "Happy to help!"), (("Be formal.", "Answer formally.", "Use a formal tone.", "Be polite and formal.", "You are a butler."), "Certainly."))
NAME_ASKS = ("What is your name?", "Who are you?", "What's your name?", "What are you called?", "Tell me your name.", "May I ask your name?", "What is your name, please?", "How are you called?", "What should I call you?", "Do you have a name?", "Your name?", "How should I call you?", "Introduce yourself.")
STORY_PLACES = "mill pond wood stream hill house sea castle lane bakery cottage harbour valley church farm boat railway lake island mountain tree".split()
YES = ("[Yes, please|Please do|Yes, a story|Oh yes|Go on|Of course][.|!|]", "[Yes|Please], tell me [one|a story][.|!]", "That would be [nice|great|lovely].")
WHO_ASKS = ("Who are you?", "Introduce yourself.")  # without a name of its own Brook says more than its name
STORY_ASKS = ("[Once upon a time|Continue: Once upon a time|Story time][.|!|...|]","Tell me a story<a>.", "Can you tell me a story<a>?", "I want to hear a story<a>.", "Please tell a story<a>.", "Tell a story<a>.", "Do you know a story<a>?", "A story<a>, please.", "Write a [short |]story<a>.", "Make up a story<a>.", "Tell me a [short|little|nice|new|bedtime] story<a>.", "Could you tell us a story<a>?", "Give me a story<a>.")
OPENERS = ("Hi! ", "Hello, ", "Hello. ", "Please: ", "Quick question: ", "I am new here. ", "Sorry, ", "Hey, ", "Good morning. ", "One more question: ", "Okay, ", "A question: ", "Hi Brook, ", "Tell me: ", "So, ", "I have a question. ", "And ", "Well, ", "Excuse me, ", "Now ", "I am a developer. ", "I run a small team. ", "We use Sluice at work. ", "I have a problem: ", "I started Sluice today. ", "Can you help? ", "For my project: ")
CLOSERS = (" Thanks.", " Please.", " Thank you!", " Please help.", " I am new.", " Thanks!", " I could not find it.", " Just curious.", " Keep it simple.", " I forgot.")

WHERE = (" in Sluice", " with Sluice", " in Sluice", " here", " on my server", " in this gateway", " on Sluice")
WORDING_SLOTS = {"done": "[DONE]"}  # square brackets mean choices in a pattern


def _reserved(topic):
    """The wording of a topic that training never sees in any frame, or None for a topic with few wordings."""
    wordings = topic.do + topic.what + topic.ask
    return min(wordings, key=lambda w: fingerprint(topic.name + w)) if len(wordings) >= 8 else None


RESERVED = {topic.name: _reserved(topic) for topic in TOPICS}


def _frame(rng, topic, wording):
    if wording in topic.ask:
        return expand(wording, rng, WORDING_SLOTS)
    frames = DO_FRAMES if wording in topic.do else WHAT_FRAMES
    where = choose(rng, WHERE) if rng.random() < 0.18 and not re.search("Sluice|server|gateway|Brook|built-in|this", wording) else ""
    text = expand(choose(rng, frames).replace("<x>", wording + where), rng, WORDING_SLOTS)
    return text[0].upper() + text[1:]


def sluice_question(rng, topic, split):
    """A question about `topic`; split is "train", "phrasing" (frame and wording were never together) or "wording"."""
    wordings = [w for w in topic.do + topic.what + topic.ask if w != RESERVED[topic.name]]
    for _ in range(2000):
        if split == "wording":
            return _frame(rng, topic, RESERVED[topic.name])
        text = _frame(rng, topic, choose(rng, wordings))
        if is_held_out(text) == (split == "phrasing"):
            return text
    return None


def sluice_exchange(rng, split="train", topic=None):
    """(user, answer, brief, check, topic name)."""
    while True:
        chosen = topic or choose(rng, TOPICS)
        text = sluice_question(rng, chosen, split)
        if text:
            return text, chosen.full, chosen.brief, chosen.check, chosen.name


def noisy(rng, text):
    """What people do to a question: openers, closers, no capital, no question mark, a slip of the finger."""
    roll = rng.random()
    if roll < 0.14:
        opener = choose(rng, OPENERS)
        text = opener + (text[0].lower() + text[1:] if opener[-2] in ",d:w" and not text.startswith(("I ", "I'", "GET", "Sluice")) else text)
    elif roll < 0.2:
        text += choose(rng, CLOSERS)
    roll = rng.random()
    if roll < 0.16:
        text = text.lower()
    if rng.random() < 0.14 and text[-1] in ".?!":
        text = text[:-1]
    if rng.random() < 0.04 and len(text) > 12:
        at = rng.randrange(3, len(text) - 2)
        if text[at].isalpha() and text[at + 1].isalpha():
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def _kept(rng, make):
    """An exchange whose user text is not held out."""
    while True:
        exchange = make(rng)
        if not is_held_out(exchange[0]):
            return exchange


def _name_exchange(rng, name):
    return choose(rng, NAME_ASKS), f"My name is {name}.", f"{name}.", name, "name"


def _story_exchange(rng):
    roll = rng.random()
    kind = name = place = None
    about = ""
    if roll < 0.6:
        kind = choose(rng, stories.words.HEROES + ["girl", "boy"])
        about = (" about an " if kind[0] in "aeiou" else " about a ") + kind
        if rng.random() < 0.2:
            name = choose(rng, stories.words.GIRLS if kind == "girl" else stories.words.BOYS if kind == "boy" else small_talk.NAMES)
            about += choose(rng, (" named ", " called ")) + name
    elif roll < 0.75:
        name = choose(rng, small_talk.NAMES)
        about = " about " + name
    elif roll < 0.85:
        place = choose(rng, STORY_PLACES)
        about = expand(" about [a|the] ", rng) + place
    asks = STORY_ASKS[1:] if about else STORY_ASKS
    opening, rest, _ = stories.story(rng, kind, name, place)
    text = opening + " " + rest
    return expand(choose(rng, asks), rng, {"a": about}), text, text, "", "story"


def one_exchange(rng):
    """A plain exchange of training text, by the shares that each kind of talk gets."""
    roll = rng.random()
    if roll < 0.54:
        return sluice_exchange(rng)
    if roll < 0.65:
        return _kept(rng, small_talk.chat_exchange)
    if roll < 0.76:
        return _kept(rng, small_talk.fact_exchange)
    if roll < 0.85:
        return _kept(rng, small_talk.sum_exchange)
    if roll < 0.95:
        return _kept(rng, small_talk.unknown_exchange)
    if roll < 0.975:
        return _kept(rng, tool_talk.json_exchange)
    if roll < 0.985:
        return _kept(rng, small_talk.echo_exchange)
    return (choose(rng, [ask for ask in NAME_ASKS if ask not in WHO_ASKS]), *_name_exchange(rng, "Brook")[1:])


def style(rng):
    """(system text or None, wants brief answers, first word of answers, own name)."""
    roll = rng.random()
    if roll < 0.5:
        return None, False, "", None
    if roll < 0.64:
        return choose(rng, PLAIN_SYSTEMS), False, "", None
    parts, brief, tone, name = [], False, "", None
    pick = rng.random()
    if pick < 0.4 or pick > 0.93:
        name = choose(rng, ASSISTANT_NAMES)
        parts.append(expand(choose(rng, NAME_SYSTEMS), rng, {"n": name}))
    if 0.4 <= pick < 0.72 or pick > 0.97:
        brief = True
        parts.append(choose(rng, BRIEF_SYSTEMS))
    if 0.72 <= pick < 0.97:
        if rng.random() < 0.5:
            tone = choose(rng, TONE_WORDS)
            parts.append(expand(choose(rng, TONES), rng, {"t": tone}))
        else:
            wordings, tone = choose(rng, NAMED_TONES)
            parts.append(choose(rng, wordings))
    if rng.random() < 0.15:
        parts.insert(0, "You are a helpful assistant.")
    return " ".join(parts), brief, tone, name


def dressed(exchange, brief, tone, name):
    text = exchange[2] if brief else exchange[1]
    if name and exchange[4] == "name":
        text = f"{name}." if brief else f"My name is {name}."
    if name and exchange[4] == "who":
        text = f"I am {name}." if brief else f"I am {name}. I can chat a little, tell short stories and answer questions about Sluice."
    if tone:
        if tone[-1] == "," and text[:2] not in ("I ", "I'") and text.split(" ")[0].rstrip(".,!:") not in small_talk.NAMES + ["Sluice"] + small_talk.DAYS + small_talk.MONTHS and text[1:2].islower():
            text = text[0].lower() + text[1:]
        text = tone + " " + text
    return text


def chat_document(rng, turns_max=9):
    """A conversation as (role, text) messages."""
    if rng.random() < 0.05:
        system, turns = tool_talk.tool_chat(rng, one_exchange)
        return [("system", system)] + turns
    system, brief, tone, name = style(rng)
    messages = [("system", system)] if system else []
    roll = rng.random()
    count = 1 if roll < 0.5 else 2 if roll < 0.72 else 3 if roll < 0.85 else rng.randrange(4, turns_max) if roll < 0.99 else rng.randrange(9, 22)
    while count > 0:
        roll = rng.random()
        if name and roll < 0.4:
            batch = [_name_exchange(rng, name) if rng.random() < 0.7 else sluice_exchange(rng, "train", BY_NAME["who"])]
        elif roll < 0.03 and count > 1:
            batch = small_talk.memory_exchanges(rng, one_exchange)
        elif roll < 0.05:
            batch = [_story_exchange(rng)]
        elif roll > 0.93 and count > 1:
            source, text, target = choose(rng, FOLLOW_UPS)
            topic = BY_NAME[target]
            batch = [sluice_exchange(rng, "train", BY_NAME[source]), (expand(text, rng), topic.full, topic.brief, topic.check, target)]
        else:
            batch = [one_exchange(rng)]
        for exchange in batch:
            if not name or exchange[4] not in ("age", "where", "brook_name", "brook_can", "brook_size", "brook_training", "brook_wrong", "feel", "wish") or rng.random() < 0.3:
                messages.append(("user", noisy(rng, exchange[0])))
                messages.append(("assistant", dressed(exchange, brief, tone, name)))
        if batch[-1][4] in ("sad", "bored") and rng.random() < 0.6 and messages and messages[-1][0] == "assistant" and "story?" in messages[-1][1]:
            messages.append(("user", noisy(rng, expand(choose(rng, YES), rng))))
            messages.append(("assistant", dressed(_story_exchange(rng), brief, tone, name)))
        count -= len(batch)
    return messages if messages and messages[-1][0] == "assistant" else chat_document(rng, turns_max)


def chat_pieces(messages, with_bos=False):
    """The pieces of a conversation in ChatML; what the assistant says and its end are learned."""
    pieces = [(BOS, False)] if with_bos else []
    for role, text in messages:
        learned = role == "assistant"
        pieces += [(START, False), (role + "\n", False), (text, learned), (END, learned), ("\n", False)]
    return pieces


def story_pieces(rng):
    """A story as plain text, mostly from the start mark."""
    opening, rest, _ = stories.story(rng)
    return [(BOS, False)] * (rng.random() < 0.85) + [(opening, True), (" " + rest, True), (EOS, True)]


def notes_pieces(rng):
    """Some answers about Sluice as one plain paragraph."""
    text = " ".join(topic.full for topic in rng.sample(TOPICS, rng.randrange(2, 6)))
    return [(BOS, False)] * (rng.random() < 0.85) + [(text, True), (EOS, True)]


DRILL_WORDS = sorted(set(small_talk.NAMES) | set(stories.words.HEROES) | set(stories.ALL_HELPERS) | set(stories.words.TINY)
                     | set(re.split(r"[|\s]", stories.words.TREASURES)) | set(tool_talk.CITIES) | set(small_talk.DAYS))
FIRST_DOCUMENTS = 14000  # in which drills prevail, until copying has been learned
LATE_DOCUMENTS = 195000  # from which on there are more stories: that two friends have two names comes last
LAST_DOCUMENTS = 226000  # from which on the sentences that bring in a friend are drilled


def drill_pieces(rng):
    """Words that come again in the same order: they teach to copy from the text before, which stories and calls build on."""
    words = [choose(rng, DRILL_WORDS) for _ in range(rng.randrange(3, 32))]
    again = " " + " ".join(words)
    return [(BOS, False), ("Again and again:", False), (again, False)] + [(again, True)] * rng.randrange(1, 3) + [(EOS, True)]


def friend_pieces(rng):
    """Beginnings of stories, each up to the sentence in which the second name appears; only that sentence is learned.

    A network of this size copies the last name too readily; here every name to be written is another than the last."""
    pieces = [(BOS, False)]
    while len(pieces) < 3 * rng.randrange(2, 6) + 1:
        opening, rest, slots = stories.story(rng)
        sentences = re.split(r"(?<=[.!?]) (?=[A-Z\"])", rest)
        at = next((i for i, sentence in enumerate(sentences) if slots.get("F") and slots["F"] in sentence), None)
        if at is not None:
            before = " ".join([opening] + sentences[:at])
            pieces += [(before, False), (" " + sentences[at], True), ("\n", False)]
    return pieces[:-1]


def document(seed, number):
    """Document `number` of the endless corpus of `seed`, as pieces."""
    rng = random.Random(seed * 1_000_003 + number)
    if rng.random() < (0.75 if number < FIRST_DOCUMENTS else 0.04):
        return drill_pieces(rng)
    if number >= LAST_DOCUMENTS and rng.random() < 0.3:
        return friend_pieces(rng)
    stories_share = 0.22 if number < LATE_DOCUMENTS else 0.45
    roll = rng.random()
    if roll < stories_share:
        return story_pieces(rng)
    if roll < stories_share + 0.03:
        return notes_pieces(rng)
    return chat_pieces(chat_document(rng), rng.random() < 0.3)


def digest():
    """Names this version of the corpus: a hash of the files that make it."""
    folder = pathlib.Path(__file__).parent
    names = ("grammar.py", "sluice_facts.py", "small_talk.py", "story_words.py", "stories.py", "tool_talk.py", "corpus.py")
    return hashlib.sha256(b"".join((folder / n).read_bytes() for n in names)).hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=20000)
    parser.add_argument("--first", type=int, default=FIRST_DOCUMENTS, help="number of the first document")
    parser.add_argument("--out", default="-", help="text file, or - for the terminal")
    parser.add_argument("--lines", action="store_true", help="text lines without control tokens, as the tokenizer trainer wants them")
    args = parser.parse_args()
    out = sys.stdout if args.out == "-" else open(args.out, "w", encoding="utf-8")
    for number in range(args.first, args.first + args.documents):
        pieces = document(args.seed, number)
        if args.lines:
            for text, _ in pieces:
                if text not in (START, END, BOS, EOS, "\n"):
                    out.write("".join(line + "\n" for line in text.split("\n") if line.strip()))
        else:
            out.write("".join(text for text, _ in pieces).rstrip("\n") + "\n\n")


if __name__ == "__main__":
    main()
