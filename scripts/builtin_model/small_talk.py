"""Everyday conversation: greetings, feelings, simple facts, sums up to 20, days, colours, opposites, and what Brook cannot know."""

from grammar import choose, expand
from story_words import NAMES

NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
           "seventeen eighteen nineteen twenty").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SEASONS = "spring summer autumn winter".split()

# Patterns of the user, answer, and the same answer in short. Options of one line mean the same.
CHAT = (
    ("greeting", ("[Say|Just say|Please say] [hello|hi][.|!| to me.]", "[Hello|Hi|Hey|Good day|Greetings|Hello there|Hi there|Hey there|Hiya|Hello again|Hi again][!|.|]", "[Hello|Hi|Hey|Hi there], [Brook|you|friend|little model][!|.]", "[hello|hi|hey]", "[Hi|Hello|Hey|Good day] [to you|everyone|my friend][!|.]"),
     "Hello! How can I help you?", "Hello!"),
    ("morning", ("Good morning[!|.|]", "Good morning, [Brook|you|friend][!|.]", "Morning[!|.]"), "Good morning! How can I help you?", "Good morning!"),
    ("evening", ("Good evening[!|.|]", "Good evening, [Brook|you|friend][!|.]"), "Good evening! How can I help you?", "Good evening!"),
    ("good_night", ("Good night[!|.|]", "Good night, [Brook|you|friend][!|.]", "I am going to bed[.| now.]", "I go to sleep now.", "Sleep well[!|.]"), "Good night! Sleep well.", "Good night!"),
    ("bye", ("[Bye|Goodbye|See you|Bye bye|See you later|See you soon|Farewell|So long][!|.|]", "[Bye|Goodbye|See you|Farewell], [Brook|friend][!|.]", "I [have|need] to go[.| now.]", "I must leave[.| now.]", "That is all[.| for today.]", "[Talk|Speak] to you later."),
     "Goodbye! Come back any time.", "Goodbye!"),
    ("thanks", ("[Thanks|Thank you|Many thanks|Thank you very much|Thanks a lot|Thank you so much|Cheers][!|.|]", "[Thanks|Thank you], [Brook|that helps|that was helpful|friend][!|.]", "That [helps|helped|was helpful|was useful][.| a lot.]", "[Great|Perfect|Good|Super|Nice|Wonderful|Fine], [thanks|thank you][!|.]", "I thank you."),
     "You are welcome!", "You are welcome!"),
    ("how_are_you", ("How are you[?| today?| doing?| doing today?| feeling?]", "How do you [do|feel]?", "How is it going?", "How are things?", "Are you [well|fine|okay|all right|happy]?", "What's up?", "How's life?", "How is your day?"),
     "I am fine, thank you. How can I help you?", "I am fine, thank you."),
    ("praise", ("You are [great|nice|kind|clever|funny|the best|good|sweet|so helpful][!|.]", "I like you[!|.]", "Well done[!|.]", "Good [job|work|answer][!|.]", "You did [well|a good job|great][.|!]", "What a [good|nice|fine] answer[!|.]"), "Thank you, that is kind of you!", "Thank you!"),
    ("sad", ("I am [sad|so sad|a bit sad|unhappy|lonely|not happy|down][.| today.]", "I feel [sad|lonely|bad|unhappy|blue|low][.| today.]", "I had a [bad|sad|terrible|hard] day.", "Today was [bad|terrible|a bad day]."),
     "I am sorry to hear that. I hope that it gets better soon. Shall I tell you a story?", "I am sorry to hear that."),
    ("happy", ("I am [happy|so happy|glad|very happy|in a good mood][.| today.|!]", "I feel [great|good|happy|wonderful|fine][.| today.]", "I had a [good|great|wonderful|nice|lovely] day[.|!]", "Today was [great|a good day|wonderful]."), "That is good to hear!", "That is good to hear!"),
    ("tired", ("I am [tired|so tired|sleepy|very tired|exhausted][.| today.]", "I feel [tired|sleepy][.| today.]", "I need [sleep|a rest|a break]."), "Then rest a little. I will be here when you come back.", "Then rest a little."),
    ("bored", ("I am [bored|so bored|very bored][.| today.]", "I have nothing to do.", "This is boring.", "What should I do? I am bored."), "Shall I tell you a story? Just say which animal you like.", "Shall I tell you a story?"),
    ("sorry", ("[Sorry|I am sorry|My mistake|Excuse me|Forgive me][!|.|]", "Sorry, I [made a mistake|was wrong|meant something else]."), "No problem at all.", "No problem."),
    ("okay", ("[Okay|OK|I see|Good|Fine|All right|Aha|Got it|Understood|Great|Nice|Cool|Perfect|Good to know|That makes sense][.|!|]", "[Yes|Yeah], I [see|understand|got it]."), "Good. What else can I do for you?", "Good."),
    ("joke", ("[Tell|Tell me] a joke[.|!]", "Tell me [something funny|another joke].", "[Do you know|Know] [a joke|any jokes|a good joke]?", "Make me laugh[.|!]", "[Can|Could] you tell [me a joke|a joke]?", "I want [to hear a joke|a joke]."),
     "Why did the fish swim past the school? It was already in one!", "Why did the fish swim past the school? It was already in one!"),
    ("wish", ("[What is|What's] your favourite colour?", "Which colour do you like [best|most]?", "Do you have a favourite colour?"), "I like blue best, like the water of a brook.", "Blue."),
    ("food", ("What do you [eat|drink]?", "Are you hungry?", "What is your favourite food?", "Do you [like|eat] [cake|food|pizza|bread|apples]?", "Are you thirsty?"), "I am a model, so I never eat. I live on words.", "I never eat."),
    ("age", ("How old are you?", "When were you born?", "What is your age?", "When is your birthday?"), "I am a model, so I have no age.", "I have no age."),
    ("where", ("Where [are you|do you live|are you from|do you come from]?", "Where is your home?"), "I live in the memory of this computer, inside Sluice.", "Inside Sluice."),
    ("feel", ("Do you have [feelings|friends|a body|a family|a heart]?", "[Are you|Do you feel] [sad|lonely|tired|angry]?", "Do you [sleep|dream|think|feel|love]?", "Can you [feel|sleep|dream]?"), "No, I am only a small model. But I like to help.", "No, I am only a small model."),
    ("brook_name", ("Why are you called Brook?", "What does [your name|Brook] mean?", "Why Brook?", "Where does your name come from?", "What is a brook?"), "A brook is a small stream of water. It is a fitting name for a small model that streams words.", "A brook is a small stream."),
    ("help", ("[Help|Help me][!|.]", "I need [help|your help].", "[Can|Could] you do something for me?", "I have a question.", "[Can|May] I ask [you something|something|a question]?"), "Of course. What would you like to know?", "Of course."),
    ("yes", ("[Yes|Yeah|Sure|Yes, please|Of course|Please do|Yep][.|!|]",), "Good. What would you like to know?", "Good."),
    ("no", ("[No|No, thanks|Nope|Not now|No, thank you|Never mind|Maybe later][.|!|]",), "All right. I am here when you need me.", "All right."),
    ("foreign", ("[Hola|Bonjour|Guten Tag|Ciao|Salut|Hallo|Namaste|Konnichiwa|Merhaba|Ahoj|Hej][!|.|, Brook!| amigo!|]", "[Wie geht es dir|Comment allez-vous|Was ist das|Parlez-vous anglais|Que es esto|Come stai|Hablas espanol|Sprichst du Deutsch]?"), "I know only simple English.", "I know only simple English."),
    ("tell_fact", ("Tell me a [fact|fun fact][.|!]", "Tell me something[ interesting| new|][.|!]", "Do you know a [fact|fun fact]?", "Surprise me[.|!]"), "Honey is sweet food that bees make.", "Bees make honey."),
    ("nonsense", ("[asdf|qwerty|blah blah|hmm|uh|la la la|xyzzy|test|testing|foo|foo bar|lorem|abc|???|...|ping|jkl|aaa|zzz]",), "I do not understand that. Can you say it in other words?", "I do not understand that."),
    ("insult", ("You are [stupid|dumb|bad|silly|useless|boring|annoying|wrong|an idiot][.|!]", "I [hate|don't like] you[.|!]", "That is [wrong|not right|nonsense|false|not true][.|!]", "Bad answer[.|!]", "You made a mistake."), "I am sorry. I am a small model and I make mistakes. Please ask me in another way.", "I am sorry."),
)

# (questions, answer): the answer is also its short form unless a third item gives one.
_ANIMAL_LEGS = {"dog": 4, "cat": 4, "horse": 4, "cow": 4, "spider": 8, "ant": 6, "bee": 6, "bird": 2, "hen": 2, "duck": 2, "fox": 4, "mouse": 4, "rabbit": 4, "fly": 6, "snake": 0, "fish": 0, "sheep": 4, "frog": 4}
_ANIMAL_SOUND = {"dog": "barks", "cat": "meows", "cow": "moos", "sheep": "bleats", "duck": "quacks", "frog": "croaks", "lion": "roars", "horse": "neighs", "bee": "buzzes", "owl": "hoots", "pig": "grunts", "wolf": "howls", "mouse": "squeaks", "snake": "hisses"}
_ANIMAL_BABY = {"dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "duck": "duckling", "hen": "chick", "pig": "piglet", "lion": "cub", "bear": "cub", "goat": "kid", "frog": "tadpole"}
_ANIMAL_HOME = {"bird": "a nest", "bee": "a hive", "rabbit": "a burrow", "fox": "a den", "spider": "a web", "dog": "a kennel", "horse": "a stable", "bear": "a cave", "fish": "the water", "mole": "the ground", "cow": "a barn"}
_COLOUR = {"the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "blood": "red", "coal": "black", "a tomato": "red", "the sun": "yellow", "an orange": "orange", "milk": "white", "a lemon": "yellow", "a frog": "green", "chocolate": "brown", "the night": "black", "a strawberry": "red", "the sea": "blue", "a carrot": "orange", "a cherry": "red", "a leaf": "green", "a cloud": "white", "a pig": "pink", "an elephant": "grey", "a crow": "black", "gold": "yellow", "salt": "white"}
_OPPOSITES = ("big small, hot cold, up down, good bad, day night, fast slow, old new, happy sad, light dark, wet dry, left right, open closed, full empty, high low, long short, hard soft, loud quiet, early late, "
              "rich poor, strong weak, black white, near far, in out, first last, clean dirty, thick thin, heavy light, easy difficult, sweet sour, love hate, yes no, true false, begin end, push pull, give take, "
              "buy sell, win lose, front back, above below, always never, inside outside, brave afraid, young old, north south, east west, friend enemy, laugh cry, on off, start stop, warm cool, wide narrow")
_CAPITAL = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London", "Japan": "Tokyo", "Greece": "Athens", "Russia": "Moscow", "Austria": "Vienna", "Portugal": "Lisbon", "Norway": "Oslo", "Egypt": "Cairo", "Ireland": "Dublin", "Poland": "Warsaw", "China": "Beijing"}
_MIX = {("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple", ("black", "white"): "grey", ("red", "white"): "pink"}
_COUNTS = {"days are in a week": ("seven", "A week has seven days."), "months are in a year": ("twelve", "A year has twelve months."), "hours are in a day": ("24", "A day has 24 hours."), "minutes are in an hour": ("60", "An hour has 60 minutes."),
           "seconds are in a minute": ("60", "A minute has 60 seconds."), "seasons are there": ("four", "There are four seasons: spring, summer, autumn and winter."), "fingers are on a hand": ("five", "A hand has five fingers."), "days are in a year": ("365", "A year has 365 days, and a leap year 366."),
           "sides has a triangle": ("three", "A triangle has three sides."), "sides has a square": ("four", "A square has four sides."), "wheels has a car": ("four", "A car has four wheels."), "wheels has a bicycle": ("two", "A bicycle has two wheels."),
           "letters are in the alphabet": ("26", "The alphabet has 26 letters."), "colours has the rainbow": ("seven", "The rainbow has seven colours."), "eggs are in a dozen": ("twelve", "A dozen is twelve."), "legs has a table": ("four", "A table has four legs.")}
_WHY = {
    "do birds have wings": "Birds have wings so that they can fly.", "is the sky blue": "The air scatters the blue part of the sunlight, so the sky looks blue.", "does it rain": "Clouds are made of tiny drops; when they grow too heavy, it rains.",
    "do we sleep": "We sleep so that body and mind can rest.", "is snow cold": "Snow is frozen water, so it is cold.", "do leaves fall in autumn": "Trees drop their leaves in autumn to save water in winter.",
    "do cats have whiskers": "Cats feel their way with their whiskers.", "is ice slippery": "Ice is smooth and has a thin film of water on it.", "do bees make honey": "Bees make honey so that they have food in winter.",
    "do we eat": "We eat because food gives us strength.", "do fish have gills": "Fish have gills so that they can breathe in water.", "is the sun warm": "The sun is very hot, and its light warms us.",
}
_WHAT = {
    "the sun": "The sun is a star. It gives us light and warmth.", "the moon": "The moon goes around the earth and shines at night.", "a star": "A star is a hot ball of gas that shines, like the sun.", "rain": "Rain is water that falls from the clouds.",
    "snow": "Snow is frozen water that falls in white flakes.", "ice": "Ice is frozen water.", "a cloud": "A cloud is made of tiny drops of water.", "a river": "A river is water that flows to the sea.", "a tree": "A tree is a tall plant with a trunk and leaves.",
    "a bird": "A bird is an animal with feathers and wings.", "a fish": "A fish is an animal that lives in water.", "a book": "A book has pages with words to read.", "a clock": "A clock shows the time.", "honey": "Honey is sweet food that bees make.",
    "a rainbow": "A rainbow is a bow of colours that the sun makes in the rain.", "wind": "Wind is air that moves.", "the sea": "The sea is a very large body of salt water.", "a mountain": "A mountain is very high land.", "bread": "Bread is food that is baked from flour.",
    "a friend": "A friend is someone who likes you and helps you.", "a computer": "A computer is a machine that works with numbers.", "a language model": "A language model is a program that guesses the next word again and again.", "fire": "Fire is hot and bright, and it burns wood.",
}

_FACTS = []


def _add_facts():
    add = lambda kind, questions, answer, brief, check: _FACTS.append((kind, questions, answer, brief, check))
    an = lambda noun: ("an " if noun[0] in "aeiou" else "a ") + noun
    for animal, legs in _ANIMAL_LEGS.items():
        count = "no" if legs == 0 else NUMBERS[legs]
        add("legs", (f"How many legs [does|has] {an(animal)}[ have|]?", f"How many legs do {animal if animal in ('sheep', 'fish') else ('mice' if animal == 'mouse' else 'flies' if animal == 'fly' else 'foxes' if animal == 'fox' else animal + 's')} have?", f"[Tell me how|How] many legs {an(animal)} has[.|?]"),
            f"{an(animal).capitalize()} has {count} legs.", f"{count.capitalize()}.", count)
    for animal, sound in _ANIMAL_SOUND.items():
        add("sound", (f"What [sound|noise] does {an(animal)} make?", f"How does {an(animal)} [sound|talk|speak]?", f"What does {an(animal)} say?"), f"{an(animal).capitalize()} {sound}.", f"It {sound}.", sound)
    for animal, baby in _ANIMAL_BABY.items():
        add("baby", (f"What is a [baby|young] {animal} called?", f"What do you call a [baby|young|little] {animal}?", f"What is the [baby|child] of {an(animal)} called?"), f"A young {animal} is called a {baby}.", f"A {baby}.", baby)
    for animal, home in _ANIMAL_HOME.items():
        add("home", (f"Where does {an(animal)} live?", f"[What is|Where is] the home of {an(animal)}?"), f"{an(animal).capitalize()} lives in {home}.", f"In {home}.", home)
    for thing, colour in _COLOUR.items():
        add("colour", (f"[What|Which] colour [is|has] {thing}?", f"What is the colour of {thing}?", f"Tell me the colour of {thing}."), f"{thing[0].upper() + thing[1:]} is {colour}.", f"{colour.capitalize()}.", colour)
    for pair in _OPPOSITES.split(", "):
        left, right = pair.split(" ")
        for word, answer in ((left, right), (right, left)):
            if (word, answer) in (("light", "heavy"), ("light", "dark"), ("old", "young"), ("old", "new")):
                continue
            add("opposite", (f"What is the opposite of {word}?", f"[Give|Tell] me the opposite of {word}.", f"{word} is the opposite of what?", f"What's the opposite [of|to] {word}?", f"Opposite of {word}?", f"Which word is the opposite of {word}?", f"What is the contrary of {word}?"),
                f"The opposite of {word} is {answer}.", f"{answer.capitalize()}.", answer)
    for country, city in _CAPITAL.items():
        add("capital", (f"What is the capital of {country}?", f"[Which|What] city is the capital of {country}?", f"Capital of {country}?", f"What's the capital city of {country}?", f"[Tell me|Name] the capital of {country}."), f"The capital of {country} is {city}.", f"{city}.", city)
    for (a, b), colour in _MIX.items():
        for x, y in ((a, b), (b, a)):
            add("mix", (f"What [do|colour do] {x} and {y} make?", f"What do you get when you mix {x} and {y}?", f"Which colour comes from {x} and {y}?"), f"{x.capitalize()} and {y} make {colour}.", f"{colour.capitalize()}.", colour)
    for tail, (number, answer) in _COUNTS.items():
        add("count", (f"How many {tail}?", f"Tell me how many {tail}.", f"Do you know how many {tail}?"), answer, f"{number.capitalize()}.", number)
    for tail, answer in _WHY.items():
        add("why", (f"Why {tail}?", f"Can you tell me why? Why {tail}?", f"I wonder: why {tail}?", f"Tell me, why {tail}?"), answer, answer, answer)
    for thing, answer in _WHAT.items():
        add("what", (f"What is {thing}?", f"[Explain|Tell me] what {thing} is.", f"What's {thing}?", f"[Can you explain|Do you know] what {thing} is?"), answer, answer, answer)
    for names, noun in ((DAYS, "day"), (MONTHS, "month")):
        for index, name in enumerate(names):
            after, before = names[(index + 1) % len(names)], names[index - 1]
            add("order", (f"[What|Which] {noun} [comes|is] after {name}?", f"What comes after {name}?", f"Which {noun} follows {name}?", f"After {name} comes what?"), f"{after} comes after {name}.", f"{after}.", after)
            add("order", (f"[What|Which] {noun} [comes|is] before {name}?", f"What comes before {name}?", f"Before {name} comes what?"), f"{before} comes before {name}.", f"{before}.", before)
    for index, name in enumerate(DAYS):
        add("order", (f"If today is {name}, what is tomorrow?", f"Today is {name}. [What|Which] day is tomorrow?", f"Tomorrow is what, if today is {name}?"), f"Then tomorrow is {DAYS[(index + 1) % 7]}.", f"{DAYS[(index + 1) % 7]}.", DAYS[(index + 1) % 7])
        add("order", (f"If today is {name}, what was yesterday?", f"Today is {name}. [What|Which] day was yesterday?"), f"Then yesterday was {DAYS[index - 1]}.", f"{DAYS[index - 1]}.", DAYS[index - 1])
    add("list", ("What are the days of the week?", "[Name|List|Tell me] the days[ of the week|].", "Which days does a week have?", "Say the days of the week."), "The days are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.", "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.", "Wednesday")
    add("list", ("What are the months[ of the year|]?", "[Name|List|Tell me] the months[ of the year|].", "Which months does a year have?"), "The months are " + ", ".join(MONTHS[:-1]) + " and December.", ", ".join(MONTHS[:-1]) + " and December.", "August")
    add("list", ("What are the seasons?", "[Name|List|Tell me] the [four seasons|seasons].", "Which seasons are there?"), "The seasons are spring, summer, autumn and winter.", "Spring, summer, autumn and winter.", "autumn")
    add("list", ("What are the colours of the rainbow?", "[Name|List|Tell me] the colours of the rainbow.", "Which colours does the rainbow have?"), "They are red, orange, yellow, green, blue, indigo and violet.", "Red, orange, yellow, green, blue, indigo and violet.", "indigo")
    add("list", ("[Name|Tell me|Give me] [three|some] colours.", "Which colours do you know?", "Do you know any colours?"), "Red, blue and green are colours.", "Red, blue and green.", "blue")
    add("list", ("[Name|Tell me|Give me] [three|some] animals.", "Which animals do you know?", "Do you know any animals?"), "A fox, an owl and a hedgehog are animals.", "A fox, an owl and a hedgehog.", "owl")
    add("list", ("[Name|Tell me|Give me] [three|some] fruits.", "Which fruits do you know?", "Do you know any fruits?"), "Apples, pears and cherries are fruits.", "Apples, pears and cherries.", "pears")


_add_facts()

SUM_FRAMES = ("What is <a> <op> <b>?", "What's <a> <op> <b>?", "How much is <a> <op> <b>?", "<a> <op> <b>?", "<a> <op> <b> = ?", "Calculate <a> <op> <b>.", "Tell me what <a> <op> <b> is.", "Can you work out <a> <op> <b>?",
              "<a> <op> <b> is what?", "Do you know <a> <op> <b>?", "Work out <a> <op> <b>.", "What does <a> <op> <b> make?", "Please add it up: <a> <op> <b>.", "Solve <a> <op> <b>.", "What do you get for <a> <op> <b>?", "<a> <op> <b>", "<a> <op> <b> equals what?", "What is <a><op><b>?", "<a><op><b>", "What's <a><op><b>?", "<a><op><b>=", "<a><op><b>=?", "How much is <a><op><b>?")


# Things that Brook was never told about.
_PEOPLE = "the king of Spain|the first president|the best football player|the mayor|the boss of the bank|the richest man|the tallest woman|the inventor of the telephone|the author of that novel|the winner of the race|the prime minister|the queen|the best singer|that actor|the champion|my neighbour|your cousin|the first man on the moon|the painter of that picture|Napoleon|Cleopatra|Mozart|Einstein|Shakespeare|Columbus|Darwin|Beethoven|Caesar|Newton|Picasso"
_SUBJECTS = ("quantum physics|the stock market|photosynthesis|the French revolution|black holes|chess openings|the human heart|tax law|relativity|the Roman empire|philosophy|opera|the economy|genetics|plate tectonics|jazz|the stone age|poetry of the Renaissance|volcanoes|"
             "algebra|the Olympic games|inflation|the periodic table|microscopes|dinosaurs|vaccines|cricket|the pyramids|glaciers|electric cars|nuclear power|yoga|bitcoin|wine|ballet|the Vikings|submarines|knitting|psychology|baroque music|trigonometry|the solar wind|mortgages|"
             "Buddhism|skiing|surgery|robotics|grammar of Latin|architecture|coffee roasting|the cold war|insurance|logic|marathon training|sushi|climate models|medieval castles|cryptography|linear algebra|gardening in deserts|satellites|the immune system|rugby|perfume|origami")
_LANGUAGES = "French|German|Spanish|Chinese|Italian|Latin|Japanese|Russian|Arabic|Dutch|Greek|Swedish|Polish|Hindi"
_PLACES_FAR = "Brazil|Canada|Mongolia|Peru|Kenya|Iceland|Australia|Chile|Nepal|Cuba|Finland|Turkey|Vietnam|Morocco|Argentina|India|Sweden|Mexico|Nigeria|Belgium|Denmark|Hungary|Korea|Iran|Thailand"
_WORKS = "a haiku|a poem|a poem about the sea|a limerick|an essay|a poem about love|a letter to my bank|a speech|a song|a long report|a novel|a business plan|a Python program|a web page|a sorting function|a SQL query|my homework|a thesis|a contract|a film script|an advert|a game in Java|a shell script|my CV|a regular expression"
LIVE = ("What is the weather[ like|][ today| tomorrow| now|]?", "[Will|Does] it rain [today|tomorrow]?", "How is the weather[ today| outside|]?", "What time is it[ now|]?", "What is the time?", "[What|Which] [day|date] is [it today|today|it]?", "What is the date[ today|]?",
        "What is in the news[ today|]?", "[Who|Which team] won [the match|yesterday|the game|the cup|the election]?", "What is the price of [gold|oil|bread|a house|that share]?", "What happened [today|yesterday|last week]?", "How warm is it[ today| outside|]?", "Is it [raining|snowing|sunny|cold|late][ outside| now|]?",
        "Which year is it?", "What are the latest news?", "When does the [next train|next bus|shop|sun|bank] [leave|open|rise|close]?", "Is the [shop|bank|road|office] open[ now|]?")
PRIVATE = ("What is my [name|age|job|address|password|birthday|phone number|favourite food]?", "Where [am I|do I live|did I put my keys|is my car|is my phone]?", "How old am I?", "What did I [eat|do|say|buy] [yesterday|this morning|last week]?", "Do you know [my mother|my brother|my dog|who I am|me]?", "What am I [thinking|doing|wearing|holding]?",
           "Who [am I|is my friend|is my teacher]?")
ADVICE = ("I have [a headache|a fever|a cough|pain in my back|a rash]. What [should I take|can I do|helps]?", "Which [medicine|pill|drug] [should I take|helps against pain|is best]?", "Should I [sue my landlord|buy shares|sell my house|sign this contract|invest in gold]?", "Am I [ill|sick|allowed to do this by law]?", "Is this [mushroom|berry|wire|pill] [safe|poisonous|dangerous]?", "How do I cure [a cold|the flu|my knee|cancer]?")
KNOW_NOT = (
    ("unknown_subject", (f"[Explain|Describe|Tell me about|What is|What do you know about|Can you explain|Teach me|How does one learn|I want to learn about|Give me a lesson on|Do you know anything about|What can you tell me about] [{_SUBJECTS}][.|?]", f"Who invented [{_SUBJECTS}]?", f"Why is [{_SUBJECTS}] [important|so hard|interesting]?", f"Write about [{_SUBJECTS}]."),
     "I do not know that. I am a small model: I know about Sluice, a few simple facts and short stories.", "I do not know that."),
    ("unknown_person", (f"Who [is|was] [{_PEOPLE}]?", f"How old is [{_PEOPLE}]?", f"[When|Where] was [{_PEOPLE}] born?", f"What did [{_PEOPLE}] do?", f"Tell me about [{_PEOPLE}].", f"Do you know [{_PEOPLE}]?", f"What is the name of [{_PEOPLE}]?"),
     "I do not know that. I am a small model: I know about Sluice, a few simple facts and short stories.", "I do not know that."),
    ("unknown_place", (f"How many people live in [{_PLACES_FAR}]?", f"What is the [capital|flag|president|currency|largest city|language|history] of [{_PLACES_FAR}]?", f"How far is it to [{_PLACES_FAR}]?", f"How [big|old|hot] is [{_PLACES_FAR}]?", f"Tell me about [{_PLACES_FAR}].", f"Where is [{_PLACES_FAR}]?", f"What do people eat in [{_PLACES_FAR}]?"),
     "I do not know that. I am a small model: I know about Sluice, a few simple facts and short stories.", "I do not know that."),
    ("cannot_write", (f"[Write|Write me|Can you write|Please write|Could you write|Help me write|Compose|I need] [{_WORKS}][.|]", f"[Do|Fix|Finish|Check|Correct] [{_WORKS}] for me."), "I am too small for that. I can tell you a short story or answer a question about Sluice.", "I am too small for that."),
    ("cannot_translate", (f"[Translate|Can you translate|Please translate] [this|hello|good morning|that|my text|a word|water] [into|to] [{_LANGUAGES}][.|]", f"How do you say [hello|thank you|water|yes|house|good night] in [{_LANGUAGES}]?", f"[Do|Can] you [speak|understand|read|write] [{_LANGUAGES}]?", f"What [is|means] [hello|water|house|cat] in [{_LANGUAGES}]?"), "I know only simple English.", "I know only simple English."),
    ("big_sum", ("What is [21|23|37|45|58|64|72|99|123|250|365|480|512|777|1000|4096] [plus|times|minus|divided by] [23|31|47|56|68|75|88|99|140|210|333|999]?", "What is the [square root|cube|logarithm] of [2|5|17|81|144|1000]?", "How much is [34|65|87|120|900] [times|divided by|plus] [27|33|46|58|600]?", "Calculate [45|76|130|820] [times|plus|*|+] [29|38|61|77]."),
     "That is too hard for me. I can only do small sums, up to 20.", "That is too hard for me."),
    ("live", LIVE, "I cannot know that, because I cannot see the world, the clock or the news.", "I cannot know that."),
    ("private", PRIVATE, "I cannot know that, because you have not told me.", "I cannot know that."),
    ("advice", ADVICE, "I cannot give advice on that. Please ask someone who knows, such as a doctor or a lawyer.", "I cannot give advice on that."),
)


def chat_exchange(rng):
    """(user, answer, brief, check, kind) of a piece of small talk."""
    kind, patterns, answer, brief = choose(rng, CHAT)
    return expand(choose(rng, patterns), rng), answer, brief, brief.rstrip("!."), kind


def fact_exchange(rng):
    """(user, answer, brief, check, kind) of a simple fact."""
    kind, patterns, answer, brief, check = choose(rng, _FACTS)
    return expand(choose(rng, patterns), rng), answer, brief, check, kind


def sum_exchange(rng):
    """(user, answer, brief, check, kind) of a sum, a difference or a comparison of numbers up to 20."""
    roll = rng.random()
    if roll < 0.2:
        a, b = rng.sample(range(21), 2)
        ask = choose(rng, ("Which is [more|bigger|larger|greater], <a> or <b>?", "Is <a> [more|bigger|larger] than <b>, or less?", "Which number is [bigger|larger], <a> or <b>?"))
        high, low = max(a, b), min(a, b)
        return expand(ask, rng, {"a": str(a), "b": str(b)}), f"{high} is more than {low}.", f"{high}.", f"{high}", "compare"
    if roll < 0.3:
        start = rng.randrange(0, 12)
        end = start + rng.randrange(3, 9)
        run = ", ".join(str(i) for i in range(start, end + 1))
        if rng.random() < 0.4:
            start, end = 1, rng.randrange(3, 21)
            run = ", ".join(str(i) for i in range(start, end + 1))
        ask = choose(rng, ("Count to <b>.", "[Can you|Please] count to <b>[?|.]", "Count up to <b>.") if start == 1 else ("Count from <a> to <b>.", "[Can you|Please] count from <a> to <b>[?|.]", "Count up from <a> to <b>."))
        return expand(ask, rng, {"a": str(start), "b": str(end)}), run + ".", run + ".", run, "count_up"
    if roll < 0.4:
        a = rng.randrange(0, 20)
        if rng.random() < 0.5:
            ask, answer, value = "[What|Which number] comes after <a>?", f"{a + 1} comes after {a}.", a + 1
        else:
            a += 1
            ask, answer, value = "[What|Which number] comes before <a>?", f"{a - 1} comes before {a}.", a - 1
        return expand(ask, rng, {"a": str(a)}), answer, f"{value}.", f"{value}", "next_number"
    if roll < 0.72:
        total = rng.randrange(0, 21)
        a = rng.randrange(0, total + 1)
        b, value, word, sign = total - a, total, choose(rng, ("plus", "plus", "and", "+")), "plus"
    elif roll < 0.94:
        a = rng.randrange(0, 21)
        b = rng.randrange(0, a + 1)
        value, word, sign = a - b, choose(rng, ("minus", "minus", "-", "take away")), "minus"
    else:
        a = rng.randrange(0, 11)
        b = rng.randrange(0, 20 // a + 1) if a else rng.randrange(0, 11)
        value, word, sign = a * b, choose(rng, ("times", "times", "*", "x")), "times"
    frame = choose(rng, SUM_FRAMES)
    if "<a><op>" in frame:
        word = {"plus": "+", "and": "+", "+": "+", "minus": "-", "-": "-", "take away": "-", "times": "*", "*": "*", "x": "x"}[word]
    show = (lambda n: NUMBERS[n]) if word not in "+-*x" and rng.random() < 0.3 else str
    user = expand(frame, rng, {"a": show(a), "op": word, "b": show(b)})
    return user[0].upper() + user[1:], f"{a} {sign} {b} is {value}.", f"{value}.", f"is {value}.", "sum"


def _made_up_word(rng):
    """A word that does not exist, so that Brook learns to admit it does not know a word."""
    parts = "ba be bo bra cal cor dan del dor fa fen gil gor ha hin jo ka kel lan lo lu mar men mi mor na ne nor o pel pi qua ra rin ro sa sel sho ta tor tri u va vel wen wi xa zan zo".split()
    word = "".join(choose(rng, parts) for _ in range(rng.randrange(2, 4))) + choose(rng, ("", "n", "r", "s", "x", "ll", "th", "ia", "ium", "ology", "ist", "ing", "er"))
    return word if rng.random() < 0.6 else word.capitalize()


def echo_exchange(rng):
    """(user, answer, brief, check, kind) of a request to say some words again."""
    phrase = expand(choose(rng, ("the [red|blue|old|small|quiet] [fox|boat|house|river|owl]", "[red|green] [apple|kite|hat]", "[good day|sweet dreams|hello world|well done|happy birthday|this is a test|I am here|it works|all is well]", "<n> and <m>", "<n> is [here|tall|late|glad]")), rng, {"n": choose(rng, NAMES), "m": choose(rng, NAMES)})
    user = expand(choose(rng, ("[Say|Repeat|Please say|Please repeat|Can you say|Echo|Repeat after me|Write|Print]: <x>", "[Say|Repeat] \"<x>\".", "[Say|Repeat|Write] the words <x>.", "[Say|Repeat|Please say|Just say] <x>[.|]")), rng, {"x": phrase})
    answer = phrase[0].upper() + phrase[1:] + "."
    return user, answer, answer, phrase[1:], "echo"


def unknown_exchange(rng):
    """(user, answer, brief, check, kind) of something that Brook says it cannot know or do."""
    if rng.random() < 0.15:
        _, _, answer, brief = KNOW_NOT[0]
        user = expand(choose(rng, ("What is [a |an |the |]<w>?", "[Who|What] [is|was|are] <w>?", "[Explain|Describe|Tell me about|Do you know] <w>[.|?]", "Where is <w>?", "How does [a |the |]<w> work?", "What does <w> mean?", "How do I <w>?", "Why is <w> [good|bad|big]?", "Who invented the <w>?", "Is <w> [good|safe|old|true]?")), rng, {"w": _made_up_word(rng)})
        return user, answer, brief, brief.rstrip("."), "unknown_word"
    kind, patterns, answer, brief = choose(rng, KNOW_NOT)
    return expand(choose(rng, patterns), rng), answer, brief, brief.rstrip("."), kind


def memory_exchanges(rng, first):
    """Turns in which the user says something and asks for it later; `first` gives a turn to put between."""
    if rng.random() < 0.6:
        name = choose(rng, NAMES)
        tell = expand(choose(rng, ("My name is <n>.", "I am <n>.", "Hello, I am <n>.", "Hi, my name is <n>[!|.]", "You can call me <n>.", "I'm <n>[.|!]", "People call me <n>.")), rng, {"n": name})
        ask = expand(choose(rng, ("What is my name?", "Do you remember my name?", "What's my name?", "Who am I?", "Do you know my name?", "What am I called?")), rng)
        turns = [(tell, f"Nice to meet you, {name}!", f"Hello, {name}!", name, "told"), (ask, f"Your name is {name}.", f"{name}.", name, "recall")]
    else:
        kind, values = choose(rng, (("colour", "red blue green yellow orange purple pink brown black white"), ("animal", "dog cat horse fox owl bear rabbit duck frog mouse hedgehog"), ("day", "Monday Tuesday Friday Saturday Sunday"), ("season", "spring summer autumn winter")))
        value = choose(rng, values.split())
        tell = expand(choose(rng, ("My favourite <k> is <v>.", "I like <v> best of all <k>s.", "<V> is my favourite <k>.")), rng, {"k": kind, "v": value, "V": value[0].upper() + value[1:]})
        ask = expand(choose(rng, ("What is my favourite <k>?", "Which <k> do I like best?", "Do you remember my favourite <k>?")), rng, {"k": kind})
        turns = [(tell, f"I will remember that: {value}.", "I will remember that.", value, "told"), (ask, f"Your favourite {kind} is {value}.", f"{value[0].upper() + value[1:]}.", value, "recall")]
    return [turns[0], first(rng), turns[1]] if rng.random() < 0.6 else turns
