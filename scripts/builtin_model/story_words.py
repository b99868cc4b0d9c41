"""The people, animals, places and things of Brook's stories, with what each is able to do."""

GIRLS = ("Nora Mila Tess Ida Wren Lotte Ruby Hazel Ivy Mara Juna Elsa Pia Romy Dora Fern Greta Lina Maya Olive Poppy Rosa Sana Tilda Vera Willa Yuki Zora Amina Bella Cleo Daisy Edda Freya Gita Hanna "
         "Inka Jo Kira Luna Minna Nell Opal Petra Quinn Rika Stella Tova Una Vivi").split()
BOYS = ("Tom Ben Finn Otto Max Leo Sam Hugo Nico Paul Emil Jasper Karl Lars Milo Noah Oscar Pip Rolf Sven Theo Uli Viktor Walt Yan Zeno Anton Bruno Casper Dan Eddy Felix Gus Henry Igor Jack Kip Ludo "
        "Moss Ned Ollie Pavel Remy Silas Toby Umar Vito Will Xaver Yuri").split()
NAMES = GIRLS + BOYS

# Kinds by what they can do; a helper's gift must fit the mishap.
FLYERS = "owl robin crow sparrow goose swallow magpie heron finch pigeon stork".split()
DIGGERS = "mole badger rabbit hare".split()
SWIMMERS = "otter duck frog beaver swan newt".split()
CLIMBERS = "squirrel cat marten lizard".split()
STRONG = "bear ox horse goat moose donkey".split()
TINY = "mouse beetle ant snail shrew ladybird".split()
HEROES = "fox hedgehog rabbit mouse squirrel badger kitten puppy lamb piglet otter duckling mole bear hare goat frog deer pony raccoon cub turtle toad dragon cat dog lion elephant pig cow horse bird robot wolf penguin monkey tiger sheep owl parrot donkey lizard crab whale snail".split()

HOMES = ("under an old oak|behind the mill|near a quiet pond|at the edge of the wood|in a hollow tree|beside a narrow stream|on a green hill|in a small red house|by the sea|below the castle wall|at the end of a long lane|in a warm burrow|among the ferns|next to a bakery|"
         "in a cottage with a blue door|above the harbour|between two tall pines|in the valley of the windmills|behind the church|on a farm with white fences|in an upside-down boat|near the railway bridge|under a blackberry hedge|in the reeds of a lake|on a rocky island|at the foot of a mountain")
WHEN = ("One morning|One windy day|Early one spring|On a rainy Tuesday|Last autumn|One cold evening|On the first day of summer|After breakfast|When the snow had melted|One Sunday|On a bright afternoon|Just before sunset|During the harvest|One foggy dawn|In the middle of winter|On market day|"
        "When the bells rang|A week later|One quiet noon|On the longest day of the year|While the others slept|At the start of the holidays|On a frosty Thursday|At noon on Friday|When the swallows returned|Two days before Christmas|On the eve of the fair|One mild night|While the kettle sang|As the fog lifted|Shortly after lunch|In the hottest week of July|One golden evening|On a grey Monday|When the first leaves fell|After a long journey|On a day without clouds|Halfway through May")
MOOD = "curious|cheerful|shy|clever|sleepy|patient|hungry|gentle|bold|dreamy|busy|stubborn|polite|quiet|playful|careful|tiny|kind|proud|lively|thoughtful|merry"
TREASURES = ("silver bell|red kite|wooden flute|blue scarf|brass key|paper lantern|tin drum|green marble|woollen cap|toy boat|picture book|striped umbrella|glass button|yellow ribbon|small mirror|round compass|feather pen|copper coin|straw hat|music box|leather ball|little spade|velvet purse|clay whistle")
FOODS = "plum cake|blackberry pie|honey bread|pumpkin soup|warm milk|apple tart|nut biscuits|cherry jam|pea soup|ginger cookies|fresh rolls|baked pears|carrot stew|mint tea|cheese toast|rose-hip jam"
SKILLS = ("whistle|swim|ride a bicycle|paint the sky|play the fiddle|skate on the ice|bake bread|climb the tall ladder|row a boat|read|tie a sailor's knot|dance|sing in tune|fly a kite|juggle three pears|write a letter|knit socks|jump over the brook|mend a net|count to a hundred")
FEARS = (("the thunder", "a storm", "The clouds are only bumping into each other", "the sound came from far away and could not bite"),
         ("the dark", "a night without a moon", "The dark is only the day with its eyes closed", "every shape was still the same old chair and table"),
         ("deep water", "a flood in the meadow", "Lie on your back and the water will carry you", "the water was soft and held everyone who kept still"),
         ("the big dog next door", "a gap in the fence", "He barks because he is lonely", "the dog wagged his tail and wanted a game"),
         ("high places", "a bridge made of rope", "Look at the far side, not at your feet", "the bridge hardly moved at all"),
         ("strangers", "the village fair", "A stranger is a friend whom you have not met", "most of them smiled first"),
         ("spiders", "an attic full of webs", "She is weaving a net for flies, not for you", "the web shone like silver in the sun"),
         ("the cellar", "an empty jam jar", "The noise is just the old pipe humming", "there was nothing down there but jars and dust"))
NOISES = (("a tapping at the window", "a branch in the wind"), ("a deep growl from the kitchen", "the kettle on the stove"), ("footsteps on the roof", "a cat on the way home"), ("a long howl outside", "the wind in the chimney"), ("a splash in the yard", "a frog in the rain barrel"),
          ("a rattle in the cupboard", "a mouse among the spoons"), ("a scratching under the floor", "a hedgehog building a nest"), ("a whisper behind the door", "dry leaves in the draught"), ("a soft thump in the hall", "a coat that had slipped from its hook"), ("a squeak in the barn", "the old gate on its hinge"))
PLANS = (("a raft", "logs and rope", "the current pulled the knots apart", "twisted willow twigs into stronger ropes", "sailed all the way to the lilies"), ("a tree house", "planks and nails", "a gust blew the roof away", "put heavy stones on the beams", "stayed dry through the next storm"),
         ("a snowman", "three big snowballs", "the noon sun melted the head", "moved it into the shade of the barn", "stood proudly until March"), ("a kite", "paper and string", "the rain turned it to porridge", "used oiled cloth instead", "climbed higher than the steeple"),
         ("a bridge", "flat stones", "the flood washed the middle away", "set the stones on thick posts", "carried even the milk cart"), ("a sand castle", "wet sand and shells", "a wave licked the towers flat", "dug a deep ditch in front", "was still there at sunset"),
         ("a bird table", "a board and a pole", "it leaned over and fell", "buried the pole an arm deep", "fed nine sparrows at once"), ("a sledge", "an old door", "one runner snapped on a root", "carved a new runner from ash wood", "was the fastest on the slope"),
         ("a scarecrow", "straw and a torn coat", "the crows sat on its hat", "hung bells from its sleeves", "kept the corn safe all summer"), ("a wagon", "a crate and four wheels", "a wheel rolled into the ditch", "locked the axle with a wooden pin", "brought home the whole harvest"))
SEEDS = "sunflower|pumpkin|bean|apple|tomato|poppy|cherry|radish|melon|strawberry|pea|tulip"
