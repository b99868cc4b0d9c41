"""JSON objects and tool calls: the functions that a system prompt offers, and calls of them in <tool_call> tags."""

import json

from grammar import choose, expand
from story_words import NAMES

CITIES = "Paris Berlin Rome Madrid London Tokyo Athens Vienna Lisbon Oslo Cairo Dublin Warsaw Bern Prague Riga Turin Lyon Basel Porto".split()
ROOMS = "kitchen bedroom bathroom garden hall office garage attic".split()
SONGS = "the river song|a lullaby|the morning march|some jazz|the blue waltz|rain music".split("|")
THINGS = "milk bread apples tea soap candles honey rice paper socks".split()
TENANTS = "acme north blue-team orchard harbour school library bakery lab studio".split()

# name, description, parameters, user patterns, result keys and the sentence made from the result
FUNCTIONS = (
    ("get_weather", "Weather of a city", {"city": "string"}, ("What is the weather[ like|] in <city>?", "How is the weather in <city>?", "[Tell me|Check|Get] the weather in <city>.", "Is it warm in <city>?", "Weather in <city>, please."), lambda r: {"degrees": r.randrange(2, 30)}, "It is {degrees} degrees in {city}."),
    ("get_time", "Time in a city", {"city": "string"}, ("What time is it in <city>?", "[Tell me|Check] the time in <city>.", "How late is it in <city>?"), lambda r: {"time": f"{r.randrange(1, 13)}:{r.randrange(10, 60)}"}, "It is {time} in {city}."),
    ("set_light", "Switch a light", {"room": "string", "on": "boolean"}, ("[Switch|Turn] <state> the light in the <room>.", "[Switch|Turn] the <room> light <state>.", "Light <state> in the <room>, please."), lambda r: {"ok": True}, "The light in the {room} is {state}."),
    ("set_timer", "Start a timer", {"minutes": "integer"}, ("Set a timer for <minutes> minutes.", "[Start|I need] a timer of <minutes> minutes.", "Wake me in <minutes> minutes.", "Remind me in <minutes> minutes."), lambda r: {"ok": True}, "The timer is set for {minutes} minutes."),
    ("play_song", "Play a song", {"title": "string"}, ("Play <title>.", "[Can you|Please] play <title>[.|, please.]", "I want to hear <title>."), lambda r: {"ok": True}, "I am playing {title}."),
    ("add_item", "Add to the shopping list", {"item": "string"}, ("[Add|Put] <item> [to|on] [my|the] [shopping list|list].", "I need to buy <item>.", "Remember to buy <item>."), lambda r: {"ok": True}, "I added {item} to the list."),
    ("send_message", "Send a message", {"to": "string", "text": "string"}, ("[Tell|Write to|Send a message to] <to>: <text>", "Message <to>: <text>"), lambda r: {"ok": True}, "I sent the message to {to}."),
    ("add", "Add two numbers", {"a": "integer", "b": "integer"}, ("[Add|Use the tool to add] <a> and <b>.", "What is <a> plus <b>? Use the tool.", "Sum up <a> and <b>."), None, "The sum is {sum}."),
    ("get_quota", "Quota of a tenant", {"tenant": "string"}, ("[How much quota does|How many tokens does] <tenant> have[ left|]?", "[Show|Get|Check] the quota of <tenant>."), lambda r: {"remaining": 100 * r.randrange(1, 90)}, "{tenant} has {remaining} tokens left."),
    ("create_tenant", "Create a tenant", {"name": "string"}, ("[Create|Add|Make] a tenant [named|called] <name>.", "I need a tenant called <name>."), lambda r: {"ok": True}, "The tenant {name} exists now."),
)
MESSAGES = "I will be late.|Dinner is ready.|Call me back.|See you at noon.|The train is on time.|Happy birthday!|Please bring milk.".split("|")

PREAMBLES = (
    "# Tools\n\nThese functions can be called:\n<tools>\n{tools}\n</tools>\n\nA call is a JSON object with name and arguments inside tags:\n<tool_call>\n{{\"name\": \"...\", \"arguments\": {{...}}}}\n</tool_call>",
    "You can use these functions:\n<tools>\n{tools}\n</tools>\nTo use one, answer with <tool_call> tags around its name and arguments as JSON.",
    "<tools>\n{tools}\n</tools>",
)


def _arguments(rng, name):
    """(arguments, slots for the patterns, slots for the answer)."""
    if name in ("get_weather", "get_time"):
        city = choose(rng, CITIES)
        return {"city": city}, {"city": city}
    if name == "set_light":
        room, on = choose(rng, ROOMS), rng.random() < 0.5
        return {"room": room, "on": on}, {"room": room, "state": "on" if on else "off"}
    if name == "set_timer":
        minutes = choose(rng, (1, 2, 3, 5, 7, 8, 10, 12, 15, 20, 30, 45))
        return {"minutes": minutes}, {"minutes": str(minutes)}
    if name == "play_song":
        title = choose(rng, SONGS)
        return {"title": title}, {"title": title}
    if name == "add_item":
        item = choose(rng, THINGS)
        return {"item": item}, {"item": item}
    if name == "send_message":
        to, text = choose(rng, NAMES), choose(rng, MESSAGES)
        return {"to": to, "text": text}, {"to": to, "text": text}
    if name == "add":
        a, b = rng.randrange(0, 11), rng.randrange(0, 11)
        return {"a": a, "b": b}, {"a": str(a), "b": str(b), "sum": str(a + b)}
    key = "tenant" if name == "get_quota" else "name"
    tenant = choose(rng, TENANTS)
    return {key: tenant}, {key: tenant}


_VERBS = "get set find open close start stop read check show make delete update book order call move count list save".split()
_NOUNS = "door file room user order ticket report page note task invoice train game recipe account device camera window book table event photo contact record job parcel key price letter route".split()
_KEYS = {"string": ("name", "label", "owner", "place", "code", "title", "topic"), "integer": ("number", "id", "count", "level", "year", "limit")}


def _invented_function(rng):
    """A function that exists nowhere else, so that Brook learns to read the offer: (function, arguments, user text)."""
    verb, noun = choose(rng, _VERBS), choose(rng, _NOUNS)
    parameters, arguments, words = {}, {}, []
    for kind in rng.sample(("string", "integer"), 1 if rng.random() < 0.6 else 2):
        key = choose(rng, _KEYS[kind])
        value = rng.randrange(1, 100) if kind == "integer" else choose(rng, NAMES + CITIES + TENANTS)
        parameters[key], arguments[key] = kind, value
        words.append(f"{key} {value}")
    request = choose(rng, ("{v} the {n} with {w}.", "Please {v} the {n} with {w}.", "Can you {v} the {n} with {w}?", "{v} {n}, {w}.", "I want to {v} the {n} with {w}."))
    request = request.format(v=verb, n=noun, w=" and ".join(words))
    description = choose(rng, (f"{verb.capitalize()} a {noun}", f"{verb.capitalize()}s the {noun}", f"To {verb} one {noun}"))
    return (f"{verb}_{noun}", description, parameters), arguments, request[0].upper() + request[1:]


def _invented_chat(rng):
    offers = [_invented_function(rng) for _ in range(1 if rng.random() < 0.4 else 2)]
    function, arguments, request = offers[-1]
    call = json.dumps({"name": function[0], "arguments": arguments})
    turns = [("user", request), ("assistant", "<tool_call>\n" + call + "\n</tool_call>")]
    if rng.random() < 0.5:
        turns += [("user", '<tool_response>\n{"ok": true}\n</tool_response>'), ("assistant", "Done.")]
    rng.shuffle(offers)
    return [offer[0] for offer in offers], turns


def signature(function):
    """The JSON line that offers one function."""
    name, description, parameters = function[:3]
    schema = {"type": "object", "properties": {k: {"type": t} for k, t in parameters.items()}, "required": list(parameters)}
    return json.dumps({"type": "function", "function": {"name": name, "description": description, "parameters": schema}})


def tool_chat(rng, other):
    """(system text, turns) with one or two functions on offer; a turn is (role, text). `other` gives a plain exchange."""
    invented = _invented_chat(rng) if rng.random() < 0.5 else None
    offered = invented[0] if invented else rng.sample(FUNCTIONS, 1 if rng.random() < 0.5 else 2)
    system = choose(rng, PREAMBLES).format(tools="\n".join(signature(f) for f in offered))
    if rng.random() < 0.5:
        system = choose(rng, ("You are a helpful assistant.", "You are Brook.", "Help the user.")) + "\n\n" + system
    if invented:
        return system, invented[1]
    turns = []
    if rng.random() < 0.25:
        user, answer = other(rng)[:2]
        turns += [("user", user), ("assistant", answer)]
        if rng.random() < 0.5:
            return system, turns
    function = choose(rng, offered)
    name, patterns, result, sentence = function[0], function[3], function[4], function[5]
    arguments, slots = _arguments(rng, name)
    turns.append(("user", expand(choose(rng, patterns), rng, slots)))
    turns.append(("assistant", "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}) + "\n</tool_call>"))
    if rng.random() < 0.6:
        value = {"sum": int(slots["sum"])} if result is None else result(rng)
        turns.append(("user", "<tool_response>\n" + json.dumps(value) + "\n</tool_response>"))
        turns.append(("assistant", sentence.format(**{**slots, **value})))
    return system, turns


JSON_WORDS = "Give me|Write|Return|Make|I need|Please write|Answer with|Can you give me|Produce|Create"


def json_exchange(rng):
    """(user, answer, brief, check, kind) of a request for a small JSON object."""
    name, city, age = choose(rng, NAMES), choose(rng, CITIES), rng.randrange(1, 21)
    colour = choose(rng, "red blue green yellow black white".split())
    item = choose(rng, THINGS)
    forms = (
        ("[<w>] a JSON object with the name <name> and the age <age>[.|]", {"name": name, "age": age}),
        ("[<w>] JSON for a person: <name>, <age> years old, from <city>.", {"name": name, "age": age, "city": city}),
        ("[<w>] a JSON object with name <name> and city <city>.", {"name": name, "city": city}),
        ("[Turn this into JSON|As JSON|JSON please]: name <name>, age <age>[.|]", {"name": name, "age": age}),
        ("[Turn this into JSON|As JSON|JSON please]: city <city>, colour <colour>[.|]", {"city": city, "colour": colour}),
        ("[<w>] a JSON object with the item <item> and the count <age>.", {"item": item, "count": age}),
        ("[<w>] a JSON object with the colour <colour>.", {"colour": colour}),
        ("[<w>] a JSON list of three colours.", ["red", "green", "blue"]),
        ("[<w>] a JSON list of three animals.", ["fox", "owl", "hedgehog"]),
        ("[<w>] JSON with the answer yes[.|]", {"answer": "yes"}),
        ("[<w>] JSON with the answer no[.|]", {"answer": "no"}),
    )
    pattern, value = choose(rng, forms)
    user = expand(pattern.replace("<w>", JSON_WORDS), rng, {"name": name, "age": str(age), "city": city, "colour": colour, "item": item})
    text = json.dumps(value)
    return user, text, text, text, "json"
