"""Children's stories from a grammar: each plot joins a want, a mishap with a cause, a fitting help and an end."""

import story_words as words
from grammar import choose, expand, is_held_out

OPENINGS = (
    "<H> was a [<mood>] <h> who lived [<homes>].",
    "[Once upon a time|Long ago|Not so long ago], a <h> called <H> lived [<homes>].",
    "There was once a [<mood>] <h> named <H>, and <p> lived [<homes>].",
    "[<homes_start>] lived a <h>. <S> name was <H>.",
    "A [<mood>] <h> named <H> had a home [<homes>].",
    "Everyone [in the valley|in the village|by the river|in the wood] knew <H>, the [<mood>] <h>.",
    "<H> the <h> lived [<homes>] with [two brothers|an old aunt|a grandmother|seven cousins|a lazy goldfish|a big family|a box of books|nobody but a clock].",
    "This is the story of <H>, a [<mood>] <h> who lived [<homes>].",
    "In a [land|country|village|forest] [full of apple trees|far to the north|where it often rained|beyond the hills|with one crooked tower] lived a [<mood>] <h> named <H>.",
)
CHILD_OPENINGS = (
    "<H> was a [<mood>] [kid] who lived [<homes>].",
    "[Once upon a time|Long ago|Once], a [kid] called <H> lived [<homes>].",
    "There was once a [<mood>] [kid] named <H>, and <p> lived [<homes>].",
    "A [<mood>] [kid] named <H> had a home [<homes>].",
    "<H> lived [<homes>] with [two brothers|an old aunt|a grandmother|a grumpy parrot|a mother who sang|a father who baked bread].",
)

MEET = (
    "Just then <F> the <f> [came by|walked up the path|looked over the fence|stopped for a chat|came around the corner].",
    "A <f> named <F> [heard the sighing|had seen it all|was on the way to market|lived close by] and [asked what was wrong|came over at once|wanted to know more].",
    "\"[Why so sad|What is the matter|What happened|Can I do something|Do you need a hand]?\" asked <F>, a <f> [from next door|with a basket|in a patched coat|who never hurried|with bright eyes].",
    "Luckily, <F> the <f> [was not far away|happened to pass|was resting in the shade|loved a puzzle].",
    "Who came [whistling down the lane|out of the bakery|riding on a cart|back from fishing]? It was <F> the <f>, [all ears|in a splendid mood|with mud on both knees|carrying a lunch box].",
    "Along came <F>, a <f> with a [crooked tail|loud voice|warm heart|sharp eye|long memory], who [set down a heavy sack|put away the newspaper|left the picnic|jumped off a wall] to [listen|see better|lend a hand].",
    "<H> [called for help|sat down and wept|shouted twice], and soon a <f> [arrived|appeared|came running]. It was <F>.",
)
THANKS = (
    "\"[Thank you|You saved my day|How can I repay you|I shall never forget this|You are a true friend]!\" [cried|said|laughed|whispered] <H>.",
    "<H> [hugged <F> tightly|thanked <F> again and again|bowed and then danced|gave <F> a kiss on the nose|could hardly stop laughing].",
    "<H> [fetched|bought|made|brought out] [some|a pot of|a plate of|the last of the] [<foods>] [to say thanks|for <F>|as a reward|and two spoons].",
    "[Tears turned to laughter|What a relief that was|All worry was gone], and <H> [turned three somersaults|threw a cap in the air|kissed the ground|sang at the top of <s> voice].",
    "To [celebrate|mark the day|show <s> joy], <H> [invited <F> to supper|wove a crown of daisies|gave <F> half of <s> sandwich|carved both names into a bench].",
    "\"[It was nothing|Any time|That is what neighbours are for|You would do the same|Easy]\", said <F>[| with a grin| and winked| modestly].",
)
MORALS = (
    "From that day on, <H> and <F> [were the best of friends|met every week|shared every secret|walked home together|looked after each other].",
    "[That night|In the evening|Later], <H> slept [like a stone|better than ever|with a smile|deeply and dreamed of stars].",
    "And whenever [it rained|the wind blew|autumn came|somebody cried|the moon was full], <H> [remembered <F>|thought of that day and smiled|told this tale again].",
    "<H> had learned that [asking for help is no shame|two heads are better than one|a friend is worth more than gold|small helpers can do great things|patience pays].",
    "The two [laughed until the moon rose|ate until nothing was left|sang all the way home|sat together and watched the clouds|made plans for the next day].",
    "[Soon|Before long|By the next morning] the whole [village|wood|valley|farm] [had heard of it|was talking about <F>|knew the tale|clapped for them].",
    "[To this day|Even now|Years later], [they tell the story|both of them laugh about it|<H> keeps a small memory of it on the shelf].",
    "[Neighbours|Children|Travellers|Even strangers] still [ask about it|smile when they pass the spot|point at <H> and wave|want to hear the tale twice].",
    "[On the calendar|In a diary|On the kitchen wall] <H> [drew a golden star|wrote: best day ever|painted a portrait of <F>|marked the date in red].",
    "\"[Who needs luck with friends like you|Let us never part|Shall we meet again tomorrow|Next time I will rescue you]?\" [joked|asked|said] <H>, and <F> [nodded|chuckled|agreed].".replace("Let us never part|", "").replace("Next time I will rescue you", "Would you like some cocoa"),
    "The stars [came out one by one|twinkled above the chimney|had never looked so near], and [peace returned|all was calm again|the crickets played a lullaby].",
    "[Mother|Father|Grandfather|The schoolmaster|The mayor] [shook hands with <F>|baked a special loaf|wanted every detail|gave them both a medal of tin].",
    "[Nobody|No one] was [happier|prouder|more content] than <H> [that evening|on the way home|at supper|that day].",
)
ALONE_ENDS = (
    "<H> [smiled all the way home|went to bed with a proud heart|had never felt so tall|told everyone at supper].",
    "[After that|Since then|From then on], <H> [was never afraid of trying|helped others to learn it too|did it every single day|kept a promise to be patient].",
    "And that was [the best day of the year|only the first of many adventures|how <H> became famous in the valley|enough for one day].",
    "\"[Tomorrow I will do it again|I did it|What a day|Who would have thought so]!\" [sang|said|laughed|yawned] <H>.",
)

LOST_WHERE = (  # where it ended up, how the helper reaches it, who can
    ("[fell into|rolled into|slipped into|dropped into] the [river|pond|stream|mill race|lake]", "[dived down|took a deep breath and dived|swam to the bottom|slid into the cold water] and [brought it up|came back with it|found it between two stones|lifted it out of the mud]", "SWIMMERS"),
    ("[flew up into|was blown into|got caught in|landed in] the [top of a poplar|highest elm|old chestnut|crown of a pine]", "[spread both wings and rose|flew straight up|circled once and dived|fluttered to the top] and [picked it from the twigs|let it drop gently|carried it down]", "FLYERS"),
    ("[fell down|slid into|vanished in|disappeared down] a [deep hole|dark tunnel|crack in the earth|fox hole|gap below the roots]", "[dug and dug|pushed the soil aside|scraped a new tunnel|worked with both paws] until [it came to light|there it lay|the hole was wide enough]", "DIGGERS"),
    ("[got stuck|ended up|lay] under a [fallen trunk|heavy rock|farm cart|pile of beams]", "[leaned against it|took a mighty breath|pushed with all strength|pulled on a rope] and [rolled the weight aside|made it move at last|lifted it high enough]", "STRONG"),
    ("[rolled|slipped|fell] [behind a wall|between the floor boards|into a narrow pipe|through a tiny crack]", "[squeezed inside|crept into the gap|wriggled through|went in without a light] and [pushed it out|came out with it|rolled it back]", "TINY"),
    ("[hung from|was hooked on|swung on] a [thin branch over the road|church window|weather vane|tall mast]", "[climbed up quick as a flash|went up paw over paw|jumped from ledge to ledge|ran along the beam] and [unhooked it|tossed it down|brought it back]", "CLIMBERS"),
)
LOST = (
    "<W> <p> [took|carried|wore|brought] <s> [dearest|favourite|new|precious|beloved] <t> to [the market|school|the meadow|a birthday party|the harbour|the green hill|the fair].",
    "<P> owned a <t>, a [gift|present|keepsake] from [a sailor|an uncle|the miller|a dear friend|the old queen], and <W_low> <p> [played with it outside|showed it to the ducks|took it for a walk|polished it on the wall].",
    "<W> <p> wanted to [show|lend|sell|give] <s> <t> to [the teacher|a cousin|the baker|a pen friend|the postman].",
)
LOST_MISHAP = (
    "But [a gust of wind came|<p> tripped over a root|a goose gave <o> a fright|<p> sneezed|the ground was slippery|a cart rushed past|somebody bumped into <o>], and the <t> <lost>.",
    "[Suddenly|Alas|Oh dear|All at once], [there was a jerk|a wasp buzzed|the bag tore|the string broke|<s> foot slipped], and the <t> <lost>.",
)
SAD = (
    "<H> [tried everything|stretched and jumped|used a long stick|waited and hoped|pulled and poked], but [it was no use|nothing helped|it was out of reach|it would not come].",
    "\"[Oh no|My poor <t>|What shall I do|How will I get it back]!\" [sobbed|cried|sighed|wailed] <H>.",
    "[Two tears|A tear|Big tears] ran down <s> [cheek|nose|face].",
)
LOST_HELP = (
    "<F> <helped>. The <t> was [wet|dusty|muddy|a bit bent|cold] but [whole|not broken|as lovely as before|safe].",
    "\"[Leave it to me|I can do that|Nothing easier|Watch this]\", said <F>. Then the <f> <helped>.",
)

STUCK = (
    ("[wanted to pick|longed for|went to gather] [ripe berries|sweet chestnuts|wild plums|white mushrooms|a bunch of violets]", "but [the mud was deep and held <o> fast|<p> slid into a pit|thorns caught <s> sleeve from all sides|a branch broke and pinned <s> foot]", "[dug a path|moved the branch aside|pulled on a long rope|cleared the way]", "STRONG"),
    ("[tried to cross|wanted to cross|rowed over] the [wide river|flooded meadow|windy lake]", "but the [boat sprang a leak|ice cracked|plank broke|oar floated off]", "[swam beside <o> to the bank|towed <o> to the shore|held <s> head above the water]", "SWIMMERS"),
    ("followed a [butterfly|golden leaf|strange song|drifting feather] into the [deep wood|fog|high corn|old quarry]", "but [soon every path looked the same|the mist grew thick|the way back was gone|night came too early]", "[rose above the treetops and saw the road|flew ahead and called out the way|looked down from the sky and pointed to the village]", "FLYERS"),
    ("[crept into|explored|peeped into] an [old cellar|empty tunnel|abandoned den]", "but [the door fell shut|stones slid down behind <o>|the entrance caved in]", "[dug a hole from the other side|scraped the earth away|made a new way out]", "DIGGERS"),
    ("[climbed|scrambled up] a [tall ladder|giant beech|hay loft|lighthouse wall]", "but [the ladder tipped over|<s> knees began to shake|there was no way down]", "[climbed up and showed where to step|came up and guided each foot|tied a rope to the top]", "CLIMBERS"),
)
STUCK_SAY = ("\"[Help|Is anybody there|I cannot get out|Somebody, please]!\" [called|cried|shouted] <H>.", "<H> [sat still and listened|shivered|counted slowly to stay calm|was close to tears].", "[Nobody answered at first|The echo was the only answer|An hour went by|It grew cold].")
STUCK_HELP = ("<F> [did not wait|thought for a moment|knew what to do|nodded] and <helped>.", "\"[Stay calm|Hold on|Do not move|I am here]\", said <F>, and then the <f> <helped>.")
STUCK_OUT = ("[At last|Soon|A little later] <H> was [free|safe|on firm ground|back on the road].", "How good the [sun|grass|fresh air|warm ground] felt!", "<S> [heart|knees|whiskers] stopped trembling.") 

SKILL = (
    "More than anything, <H> wanted to learn to <k>.", "<H> had one big wish: to <k>.", "[All the others|Everyone else|Even the baby next door] could <k>, but <H> could not.", "<W> <H> made up <s> mind to learn to <k>.",
)
SKILL_FAIL = (
    "[The first try|The first attempt] [ended in a heap|went badly|lasted a blink|made the hens run away|was a great mess].", "<P> [practised behind the shed|tried ten times|read about it in a book|began before breakfast], but [it went wrong|nothing worked|the neighbours giggled|<p> only grew tired].",
    "\"[I shall never learn it|It is too hard|I give up|My paws are wrong for this]\", [groaned|grumbled|muttered] <H>.",
)
SKILL_CHILD_FAIL = SKILL_FAIL[:2] + ("\"[I shall never learn it|It is too hard|I give up|My hands are too small]\", [groaned|grumbled|muttered] <H>.",)
SKILL_HELP = (
    "\"[Start slowly|One small step at a time|Do it with your eyes closed|Do not look at the others|Breathe first]\", [said|advised|suggested] <F>. \"[I failed a hundred times|It took me a year|Nobody is born with it|Every master fell once].\"",
    "<F> [showed each move|stayed until dusk|clapped at every try|held <s> elbow], and <H> [tried once more|listened well|copied it carefully].",
)
SKILL_WIN = ("[Day after day|Every evening|For two weeks] they practised, and [at last|one day|in the end] <H> could <k>!", "Then, [on the seventh day|quite suddenly|when nobody watched], it worked. <H> could <k>!")

QUARREL = (
    "<W> <H> and <F> the <f> [found|discovered|spotted] a <t> [on the beach|in the grass|under a bench|behind the barn].", "<H> had a friend, a <f> named <F>. [Together|One day] they [found|dug up|came across] a <t>.",
)
QUARREL_FIGHT = ("\"[It is mine|I saw it first|Let go|Give it to me]!\" [shouted|snapped|growled] <H>. \"[No, mine|I touched it first|Never|You always get everything]!\" [yelled|answered|hissed] <F>.", "Both of them [pulled|tugged|grabbed], and [nobody would let go|neither gave in|the shouting grew loud].")
QUARREL_APART = ("So they [went home without a word|turned their backs|stamped off in two directions], and the <t> [stayed behind in the rain|lay there all alone|was left on a stone].", "In the end each [sulked alone|sat in a corner|walked off], and the <t> [was forgotten|lay in the dust].")
QUARREL_MISS = ("But playing alone was [dull|no fun|sad|lonely].", "[Supper had no taste|The evening was long|The house was too quiet|Not even cake could cheer <o>].", "<H> [looked out of the window|kicked a pebble|thought of all their games] and missed <F>.")
QUARREL_END = ("[Next morning|At sunrise|The next day] <H> [knocked at the door of <F>|ran to find <F>|brought <F> some [<foods>]]. \"[I am sorry|Forgive me|I was silly|A friend is better than any <t>]\", <p> said. \"[Me too|So am I|Let us share|We can take turns].\"",)
QUARREL_SHARE = ("Since then, the <t> lives [one week here and one week there|on the wall between both gardens|in a box with two keys].", "They took turns with the <t>, and [it was twice the fun|nobody quarrelled again|the game was better with two].")

FEAR = ("<H> was not afraid of much, but <p> was afraid of <fear>.", "Only one thing frightened <H>, and that was <fear>.", "There was a secret: <H> feared <fear>.")
FEAR_DAY = ("<W> there was <fear_when>, and <H> [hid under a blanket|began to shake|wanted to run away|covered both ears|held <s> breath].", "Then came <fear_when>. <H> [turned pale|crept behind a barrel|clung to the door post|squeezed both eyes shut].")
FEAR_HELP = ("\"<fear_say>\", [explained|said|whispered] <F>, [an old|a wise|a friendly|a young] <f>. \"[Come and see|Take my hand|Let us look together|Try it with me].\"",)
FEAR_SEE = ("<H> [took one step|opened one eye|swallowed hard|held on to <F>] and [looked|waited|listened]. It was true: <fear_truth>.",)
FEAR_END = ("[Slowly|Little by little|Bit by bit] the fear [melted like butter|grew small|went away|turned into a tickle].", "\"[Is that all|Then I need not be scared|That is not so bad]?\" [laughed|asked|said] <H>." , "<H> even [laughed aloud|did it a second time|began to hum].")

GIFT = ("<W> <H> heard that <F> the <f> [was ill|had a cold|had hurt a leg|lay in bed with a fever].", "<H> had a best friend, a <f> named <F>, who [had not come out for days|was in bed with a cough|felt lonely and sick].")
GIFT_PLAN = ("\"[I must cheer <F> up|I will cook something warm|Sick friends need visitors|A present will help]\", [thought|said|decided] <H>.",)
GIFT_MAKE = ("So <p> [picked|gathered|bought|looked for] [thyme|lemons|wild mint|elder flowers|fresh eggs|honey], [lit the stove|washed the pot|tied on an apron] and made [<foods>].", "<P> [emptied the pantry|asked the baker for flour|searched the garden] and [cooked|baked|made] [<foods>].")
GIFT_TROUBLE = ("On the way [it began to hail|the bridge was closed|the basket grew heavy|a cold wind blew], but <H> [walked on|took the long way round|pulled up <s> collar|sang to stay brave].", "The road was [steep|icy|long|muddy], yet <H> [did not turn back|never spilled a drop|kept going].")
GIFT_END = ("<F> [ate every crumb|smelled the food and sat up|smiled for the first time in days], and [by evening the fever was gone|colour came back to those cheeks|the pain was forgotten].", "\"[You came through the cold for me|How good that smells|This is the best medicine]!\" said <F>, and [asked for more|ate it all|hugged <H>].")

BUILD = ("<W> <H> and <F> the <f> [decided|agreed|planned] to build <plan>.", "<H> had a plan. Together with <F> the <f>, <p> would build <plan>.")
BUILD_WORK = ("They [collected|fetched|borrowed|begged for] <parts> and [worked until noon|hammered and sang|got glue on their noses|began at once].",)
BUILD_BREAK = ("It looked [grand|splendid|wonderful|perfect]. But then <broke>.", "Hardly was it [done|ready|finished] when <broke>.")
BUILD_THINK = ("\"[All that work for nothing|What a pity|Now it is ruined]\", [moaned|sighed|said] <H>. \"[We only need a better idea|Now we know what was weak|Let us think]\", [answered|said|replied] <F>.", "<H> [wanted to give up|kicked the ground|hung <s> head], but <F> [rubbed one ear and thought|saw what had been wrong|drew a new plan in the sand].")
BUILD_FIX = ("So they <fixed>, and this time it <works>.", "[The next day|After a rest|With fresh courage], they <fixed>. Now it <works>.".replace("Now it <works>", "And look: it <works>"))

NOISE = ("[One night|Late at night|Around midnight|Before dawn], <H> [woke up|sat up in bed|could not sleep]. There was <noise>!", "It was [pitch dark|long past bedtime|a stormy night] when <H> heard <noise>.")
NOISE_FEAR = ("\"[A ghost|A robber|A monster|A dragon]!\" [thought|gasped|whispered] <H>.", "<S> [heart beat like a drum|hair stood on end|teeth chattered].")
NOISE_GO = ("<P> [woke|fetched|called] <F> the <f>, and the two [tiptoed out|lit a candle|took a lamp and a broom|crept down the stairs].",)
NOISE_FIND = ("And what did they see? It was [only|nothing but|just] <cause>!", "[There|In the light of the lamp] they found out: it was [only|just] <cause>.")
NOISE_END = ("<F> [giggled|snorted|shook with laughter], and <H> [had to laugh too|blushed|laughed loudest of all].", "They [made some hot milk|ate [<foods>] in the kitchen|told jokes] and [went back to bed|fell asleep at the table|soon snored].")

GARDEN = ("<W> <H> [found|was given|bought|won] a single <seed> seed.", "<W> <H> got a <seed> seed from <F> the <f>[|, in a matchbox|, wrapped in paper].")
GARDEN_F = ("\"[Plant it and wait|Give it water and time|It needs sun, rain and patience]\", said <F> the <f>, who [knew gardens well|was a gardener|lived next door].",)
GARDEN_WAIT = ("<H> [planted it by the gate|dug a small hole|put it into a pot] and [watered it each day|sat down beside it|sang to it].", "[Nothing happened|No leaf came|The earth stayed bare] for [a week|many days|half a month].")
GARDEN_DOUBT = ("<H> [wanted to dig it up|lost heart|thought it was dead], but <F> [said, \"Wait!\"|shook <fs> head|told <o> to trust the seed].",)
GARDEN_GROW = ("Then, [after a warm rain|one morning|on a sunny day], a green [tip|sprout|shoot] [peeped out|broke the soil|stood there].", "It grew [and grew|as high as the window|day by day], and in [August|late summer|September] there was the finest <seed> [in the street|anyone had seen|of all].")

REPAY = ("<W> <H> [saw|met|found] <F>, a tiny <f>, [caught in a web|under a fallen leaf|in a puddle|lost on the road].", "<W> a tiny <f> named <F> [lay on its back in the road|was stuck in wet tar|could not cross a puddle].")
REPAY_HELP = ("<H> [bent down and lifted <F> out|made a bridge from a straw|carried <F> to a dry spot|set <F> free with one finger].",)
REPAY_SAY = ("\"[One day I will help you too|I shall repay you|Call me when you need me]\", said <F>. <H> [smiled|laughed softly], for what could such a small <f> do?",)
REPAY_TROUBLE = ("[A month later|Not long after|That same week], <H> [lost the key of the house|dropped <s> ring into a mouse hole|was tied up in a tangled net|locked <s> hand in a trap of twine].",)
REPAY_END = ("[There came|Along came|Who should come but] <F>! The small <f> [crept through the gap|gnawed the thread|went where nobody else could go|slipped into the crack], and [all was well|the trouble was over|it was done in a minute].",)


def _slots(rng, kind, name, is_girl):
    she = {"P": "She", "p": "she", "o": "her", "s": "her", "S": "Her"}
    he = {"P": "He", "p": "he", "o": "him", "s": "his", "S": "His"}
    slots = dict(she if is_girl else he)
    slots.update(H=name, h=kind)
    return slots


def _pick_helper(rng, slots, kinds):
    kinds = [k for k in kinds if k != slots["h"]]
    slots["f"] = choose(rng, kinds)
    girl = rng.random() < 0.5
    pool = words.GIRLS if girl else words.BOYS
    slots["F"] = choose(rng, [n for n in pool if n != slots["H"] and n[0] != slots["H"][0]])
    slots["fs"] = "her" if girl else "his"


ALL_HELPERS = sorted(set(words.FLYERS + words.DIGGERS + words.SWIMMERS + words.CLIMBERS + words.STRONG))


def _plot_lost(rng, s):
    where, helped, group = choose(rng, LOST_WHERE)
    s["t"] = expand("[" + words.TREASURES + "]", rng)
    s["lost"], s["helped"] = expand(where, rng, s), expand(helped, rng, s)
    _pick_helper(rng, s, getattr(words, group))
    return [LOST, LOST_MISHAP, SAD, MEET, LOST_HELP, THANKS, MORALS]


def _plot_stuck(rng, s):
    want, trouble, helped, group = choose(rng, STUCK)
    s["want"], s["trouble"], s["helped"] = expand(want, rng, s), expand(trouble, rng, s), expand(helped, rng, s)
    _pick_helper(rng, s, getattr(words, group))
    return [("<W> <p> <want>, <trouble>.",), STUCK_SAY, MEET[:2] + MEET[3:4], STUCK_HELP, STUCK_OUT, THANKS, MORALS]


def _plot_skill(rng, s):
    s["k"] = expand("[" + words.SKILLS + "]", rng)
    _pick_helper(rng, s, ALL_HELPERS)
    return [SKILL, SKILL_CHILD_FAIL if s["child"] else SKILL_FAIL, MEET, SKILL_HELP, SKILL_WIN, THANKS if rng.random() < 0.4 else ALONE_ENDS, MORALS]


def _plot_quarrel(rng, s):
    s["t"] = expand("[" + words.TREASURES + "]", rng)
    _pick_helper(rng, s, ALL_HELPERS)
    return [QUARREL, QUARREL_FIGHT, QUARREL_APART, QUARREL_MISS, QUARREL_END, QUARREL_SHARE]


def _plot_fear(rng, s):
    s["fear"], s["fear_when"], s["fear_say"], s["fear_truth"] = choose(rng, words.FEARS)
    _pick_helper(rng, s, ALL_HELPERS)
    return [FEAR, FEAR_DAY, FEAR_HELP, FEAR_SEE, FEAR_END, MORALS]


def _plot_gift(rng, s):
    _pick_helper(rng, s, ALL_HELPERS)
    return [GIFT, GIFT_PLAN, GIFT_MAKE, GIFT_TROUBLE, GIFT_END, MORALS]


def _plot_build(rng, s):
    s["plan"], s["parts"], s["broke"], s["fixed"], s["works"] = choose(rng, words.PLANS)
    _pick_helper(rng, s, ALL_HELPERS)
    return [BUILD, BUILD_WORK, BUILD_BREAK, BUILD_THINK, BUILD_FIX, MORALS]


def _plot_noise(rng, s):
    s["noise"], s["cause"] = choose(rng, words.NOISES)
    _pick_helper(rng, s, ALL_HELPERS)
    return [NOISE, NOISE_FEAR, NOISE_GO, NOISE_FIND, NOISE_END, MORALS]


def _plot_garden(rng, s):
    s["seed"] = expand("[" + words.SEEDS + "]", rng)
    _pick_helper(rng, s, ALL_HELPERS)
    first = choose(rng, GARDEN)
    return [(first,)] + ([GARDEN_F] if "<F>" not in first else []) + [GARDEN_WAIT[:1], GARDEN_WAIT[1:], GARDEN_DOUBT, GARDEN_GROW[:1], GARDEN_GROW[1:], MORALS]


def _plot_repay(rng, s):
    _pick_helper(rng, s, words.TINY)
    return [REPAY, REPAY_HELP, REPAY_SAY, REPAY_TROUBLE, REPAY_END, MORALS]


PLOTS = (_plot_lost, _plot_lost, _plot_stuck, _plot_stuck, _plot_skill, _plot_quarrel, _plot_fear, _plot_gift, _plot_build, _plot_noise, _plot_garden, _plot_repay)


HOMES = words.HOMES.split("|")


def story(rng, kind=None, name=None, place=None, held_out=False):
    """(opening, rest, slots) of one story, with the kind, the name and the word of its place as given; the opening is held out of training or not, as asked."""
    while True:
        is_girl = rng.random() < 0.5
        child = kind in ("girl", "boy") or (kind is None and rng.random() < 0.25)
        if child:
            is_girl = kind == "girl" if kind else is_girl
            its_kind = "girl" if is_girl else "boy"
        else:
            its_kind = kind or choose(rng, words.HEROES)
        hero = name or choose(rng, words.GIRLS if is_girl else words.BOYS)
        if name:
            is_girl = name in words.GIRLS
            its_kind = ("girl" if is_girl else "boy") if child else its_kind
        s = _slots(rng, its_kind, hero, is_girl)
        s["child"] = child
        s["mood"] = expand("[" + words.MOOD + "]", rng)
        s["homes"] = choose(rng, [h for h in HOMES if place in h.split(" ")] if place else HOMES)
        s["homes_start"] = s["homes"][0].upper() + s["homes"][1:]
        pattern = choose(rng, [o for o in (CHILD_OPENINGS if child else OPENINGS) if not place or "<homes" in o]).replace("[kid]", its_kind)
        opening = expand(pattern, rng, s)
        for vowel in "aeiou":
            opening = opening.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
        if is_held_out(opening) == held_out:
            break
    beats = choose(rng, PLOTS)(rng, s)
    when = expand("[" + words.WHEN + "]", rng)
    s["W"], s["W_low"] = when + ",", when[0].lower() + when[1:]
    s["foods"] = expand("[" + words.FOODS + "]", rng)
    sentences = []
    for beat in beats:
        sentences.append(expand(choose(rng, beat), rng, s))
    if beats[-1] is MORALS and rng.random() < 0.35:
        more = expand(choose(rng, [m for m in MORALS if m[:4] not in ("From", "[Sin")]), rng, s)
        if more[:6] != sentences[-1][:6]:
            sentences.append(more)
    rest = " ".join(sentences)
    for vowel in "aeiou":
        rest = rest.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return opening, rest, s
