"""Wordings of one-step word problems; the test wordings never occur in training."""


def _words(text: str) -> list[str]:
    return text.split()


# Every wording holds {name}, {a}, {b} and {item}; the answer line repeats what is asked.
TRAIN: dict[str, tuple[tuple[str, str], ...]] = {
    "+": (
        ("{name} has {a} {item} and buys {b} more. How many {item} does {name} have now?",
         "{name} has {sum} {item} now."),
        ("{name} found {a} {item} in the morning and {b} in the evening. How many {item} did {name} find?",
         "{name} found {sum} {item}."),
        ("There are {a} {item} on the table. {name} puts {b} more there. How many {item} are on the table now?",
         "There are {sum} {item} on the table."),
        ("{name} sold {a} {item} on Monday and {b} on Tuesday. How many {item} did {name} sell in total?",
         "{name} sold {sum} {item} in total."),
        ("{name} keeps {a} {item} at home and {b} at work. How many {item} does {name} keep altogether?",
         "{name} keeps {sum} {item} altogether."),
        ("A box holds {a} {item}. {name} adds {b} {item}. How many {item} are in the box?",
         "The box holds {sum} {item}."),
    ),
    "-": (
        ("{name} has {a} {item} and gives away {b}. How many {item} are left?", "{name} has {sum} {item} left."),
        ("There were {a} {item} in a shop. {name} bought {b} of them. How many {item} remain in the shop?",
         "There are {sum} {item} in the shop."),
        ("{name} carried {a} {item} and lost {b} on the way. How many {item} does {name} still have?",
         "{name} still has {sum} {item}."),
        ("{name} needs {a} {item} and already has {b}. How many more {item} does {name} need?",
         "{name} needs {sum} more {item}."),
        ("Of {a} {item}, {b} are broken. How many {item} can {name} use?", "{name} can use {sum} {item}."),
        ("{name} made {a} {item} and sold {b}. How many {item} did {name} keep?", "{name} kept {sum} {item}."),
    ),
    "*": (
        ("{name} has {a} bags with {b} {item} each. How many {item} does {name} have?", "{name} has {sum} {item}."),
        ("There are {a} shelves, and each shelf holds {b} {item}. How many {item} can {name} count?",
         "{name} can count {sum} {item}."),
        ("{name} packs {b} {item} into each of {a} boxes. How many {item} does {name} pack?",
         "{name} packs {sum} {item}."),
        ("Every day {name} makes {b} {item}. How many {item} does {name} make in {a} days?",
         "{name} makes {sum} {item}."),
        ("{a} friends of {name} bring {b} {item} each. How many {item} do they bring?", "They bring {sum} {item}."),
    ),
}  # fmt: skip

TEST: dict[str, tuple[tuple[str, str], ...]] = {
    "+": (
        ("After collecting {a} {item}, {name} receives {b} more from a neighbour. How many {item} is that in total?",
         "That is {sum} {item} in total."),
        ("One drawer contains {a} {item}, another contains {b}. How many {item} does {name} own altogether?",
         "{name} owns {sum} {item} altogether."),
    ),
    "-": (
        ("{name} started the week with {a} {item} and used up {b}. How many {item} are left at the end?",
         "At the end {sum} {item} are left."),
        ("From a pile of {a} {item}, {name} takes away {b}. How many {item} remain?", "{sum} {item} remain."),
    ),
    "*": (
        ("In each of {a} rooms {name} finds {b} {item}. How many {item} is that together?",
         "Together that is {sum} {item}."),
        ("{name} orders {a} packs, each with {b} {item}. How many {item} arrive?", "{sum} {item} arrive."),
    ),
}  # fmt: skip

NAMES = _words(
    "Mara Idris Tove Lenz Anouk Bram Cleo Dario Esra Finn Gita Hale Ilse Jaro Kaya Lior Mona Nils Orla Pia Quin Rafe "
    "Suri Taro Una Vito Wren Xena Yusuf Zara"
)
ITEMS = {
    "train": _words(
        "pens marbles stickers coins shells apples books cards ribbons stamps lamps cups keys buttons tickets plates "
        "candles seeds toys badges spoons ropes bottles photos"
    ),
    "test": _words("magnets postcards lemons bricks whistles scarves beads notebooks"),
}
