"""The words that instructions are filled with: plain things of every day, and what is known about them."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """`a - b; c - d` as pairs."""
    pairs = (entry.split(" - ") for entry in text.split("; "))
    return tuple((first, second) for first, second in pairs)


NAMES = _words(
    "Marta Amina Jonas Lucia Pavel Ingrid Tomas Nadia Hugo Elena Karim Sofia Viktor Daniel Leila Oscar Greta Clara "
    "Anton Ruben Emil Igor Rosa Felix Mina Boris"
)
OBJECTS = _words(
    "lamp chair clock coat bag cup book bike radio table phone box map key bed door mirror basket tent pen"
)
COLOURS = _words("red blue green white black yellow brown grey")
PLACES = _words("market park library station school museum garden harbour office hotel")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
EVENTS = _words("picnic concert meeting party lesson dinner walk game")
TOPICS = _words("budget roof kitchen website schedule garden holiday prices")
VERBS = _pairs(
    "open - opened; close - closed; clean - cleaned; hold - held; paint - painted; repair - repaired; move - moved; "
    "use - used; sell - sold; order - ordered; lift - lifted; take - took"
)
"""Verb and past tense."""
GOOD = _words("great useful lovely strong fast quiet")
BAD = _words("broken slow noisy loud weak dirty")

COLOUR_OF = _pairs(
    "a lemon - yellow; snow - white; grass - green; coal - black; the sea - blue; blood - red; milk - white; "
    "a frog - green; a tomato - red; chocolate - brown; the sun - yellow; an elephant - grey; a banana - yellow; "
    "a cucumber - green; a raven - black; a strawberry - red"
)
HOME_OF = _pairs(
    "a fish - the water; a bee - a hive; a bird - a nest; a dog - a house; a horse - a stable; a bear - a forest; "
    "a camel - the desert; a cow - a barn; a rabbit - a hole; a lion - the grassland; a crab - the sand; "
    "a spider - a web; a penguin - the cold south; a goat - the mountains"
)
OPPOSITE_OF = _pairs(
    "hot - cold; big - small; old - new; fast - slow; early - late; high - low; full - empty; hard - soft; "
    "light - dark; dry - wet; open - closed; rich - poor; loud - quiet; strong - weak; long - short; first - last"
)
MAKER_OF = _pairs(
    "bread - a baker; shoes - a shoemaker; suits - a tailor; houses - a builder; music - a musician; cheese - a dairy; "
    "paintings - a painter; meals - a cook; books - a writer; furniture - a carpenter; jewels - a goldsmith; "
    "films - a director; gardens - a gardener; laws - a parliament"
)
KIND_OF = _pairs(
    "dog - animal; cow - animal; horse - animal; rabbit - animal; goat - animal; bear - animal; pear - fruit; "
    "plum - fruit; cherry - fruit; banana - fruit; lemon - fruit; peach - fruit; hammer - tool; saw - tool; "
    "drill - tool; screwdriver - tool; spade - tool; wrench - tool; shirt - garment; coat - garment; scarf - garment; "
    "hat - garment; jacket - garment; dress - garment"
)
FOUND_IN = {
    "a kitchen": _words("spoon pot plate stove"),
    "a bathroom": _words("towel soap sink mirror"),
    "an office": _words("desk printer phone chair"),
    "a school": _words("board desk book pencil"),
    "a garden": _words("flower tree bench hose"),
    "a garage": _words("car hammer bike ladder"),
    "a bedroom": _words("bed pillow lamp closet"),
    "a hospital": _words("bed doctor nurse syringe"),
    "a farm": _words("cow tractor barn fence"),
    "a harbour": _words("boat crane rope net"),
    "a library": _words("book shelf reader lamp"),
    "a station": _words("train ticket clock bench"),
    "a park": _words("tree lake path bench"),
    "a bakery": _words("bread oven flour cake"),
    "a museum": _words("painting guard statue ticket"),
    "a hotel": _words("room key bed guest"),
    "a forest": _words("tree mushroom deer path"),
    "a toolbox": _words("hammer saw drill nail"),
    "a theatre": _words("stage actor curtain seat"),
    "a stadium": _words("ball goal seat fan"),
}
"""Places, and what is found there, in the order in which it is named."""
NUMBERS = ("two", "three", "four")

FACTS = (COLOUR_OF, HOME_OF, OPPOSITE_OF, MAKER_OF)
EVERY = sorted(
    {
        *NAMES, *OBJECTS, *COLOURS, *PLACES, *DAYS, *EVENTS, *TOPICS, *GOOD, *BAD, *FOUND_IN, *NUMBERS,
        *(word for pairs in (*FACTS, VERBS, KIND_OF) for pair in pairs for word in pair),
    },
    key=lambda word: (-len(word), word),
)  # fmt: skip
"""Whatever a wording can be filled with, the longest first: what is taken out to compare wordings."""
