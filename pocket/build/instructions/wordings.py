"""How instructions are put: by category and kind, wordings of the training split and others of the test split."""

from typing import Literal

Split = Literal["train", "test"]

WORDINGS: dict[tuple[str, str], dict[Split, tuple[str, ...]]] = {
    ("open qa", "colour"): {
        "train": ("What colour is {thing}?", "Tell me the colour of {thing}.", "Which colour does {thing} have?",
                  "Name the colour of {thing}.", "I want to know the colour of {thing}.",
                  "Do you know which colour {thing} is?"),
        "test": ("Please say what colour {thing} has.", "In which colour do we see {thing}?"),
    },
    ("open qa", "home"): {
        "train": ("Where does {thing} live?", "Tell me where {thing} lives.", "What is the home of {thing}?",
                  "In which place does {thing} live?", "Do you know where {thing} lives?",
                  "Name the place where {thing} lives."),
        "test": ("Where is {thing} at home?", "Please say where {thing} lives."),
    },
    ("open qa", "opposite"): {
        "train": ("What is the opposite of {thing}?", "Name the opposite of {thing}.",
                  "Which word is the opposite of {thing}?", "Tell me the opposite of the word {thing}.",
                  "Give me the opposite of {thing}.", "Do you know the opposite of {thing}?"),
        "test": ("Which word says the opposite of {thing}?", "Please find the opposite of {thing}."),
    },
    ("open qa", "maker"): {
        "train": ("Who makes {thing}?", "Tell me who makes {thing}.", "Who is the maker of {thing}?",
                  "Do you know who makes {thing}?", "Name the one who makes {thing}.", "Who is it that makes {thing}?"),
        "test": ("Please say who makes {thing}.", "Whose work is {thing}?"),
    },
    ("closed qa", "bought"): {
        "train": ("Text: {name} bought a {colour} {object} at the {place} on {day}.\nQuestion: {question}",
                  "Read this: On {day} {name} found a {colour} {object} at the {place} and bought it.\n{question}",
                  "{question}\nText: At the {place}, {name} paid for a {colour} {object}. It was {day}."),
        "test": ("A {colour} {object} was bought by {name} at the {place} last {day}.\nNow answer this: {question}",
                 "It was {day} when {name} went to the {place} for a {colour} {object}.\nNow answer: {question}"),
    },
    ("extract", "price"): {
        "train": ("Extract the price: {name} paid {n} crowns for a {object}.",
                  "Find the price in this sentence: For a {object}, {name} gave {n} crowns.",
                  "A {object} from the {place} cost {name} {n} crowns. Extract the price."),
        "test": ("Take the price out of this text: The {object} was sold to {name} for {n} crowns.",
                 "{name} sold a {object} and got {n} crowns. Which price is named?"),
    },
    ("extract", "names"): {
        "train": ("Extract all names: {name} met {second} and {third} at the {place}.",
                  "Which names are in this sentence? {name}, {second} and {third} came on {day}.",
                  "List the names in the text: On {day} {name} called {second} and {third}."),
        "test": ("Take all names out of this text: {name} waited for {second} and {third} near the {place}.",
                 "{name} wrote to {second} and {third} last {day}. Which names are named?"),
    },
    ("extract", "day"): {
        "train": ("Extract the day: The {event} at the {place} is on {day}.",
                  "Find the day in this sentence: On {day} there is a {event} for {name}.",
                  "{name} will go to the {event} on {day}. Extract the day."),
        "test": ("Take the day out of this text: {name} plans the {event} for {day}.",
                 "This {day} the {place} is closed for a {event}. Which day is named?"),
    },
    ("summarization", "shopping"): {
        "train": ("Summarize: {name} went to the {place}. There {name} saw a {object}. The {object} was {colour} and "
                  "cost {n} crowns. {name} liked it and bought it.",
                  "Say it in one sentence: {name} looked for a {object}. At the {place} there was a {colour} one. It "
                  "cost {n} crowns. {name} took it home.",
                  "{name} needed a {object}. The shop at the {place} had a {colour} one for {n} crowns. In the end "
                  "{name} bought it. Give a summary."),
        "test": ("Make this shorter: The old {object} of {name} was lost. So {name} visited the {place}. A {colour} "
                 "{object} was there for {n} crowns. {name} paid and left.",
                 "Tell the main point: It rained when {name} came to the {place}. A {object} stood in the window. It "
                 "was {colour}. {name} gave {n} crowns for it."),
    },
    ("summarization", "plan"): {
        "train": ("Summarize: The team met on {day}. {name} spoke about the {topic} for an hour. There were questions. "
                  "Then the plan was accepted.",
                  "Say it in one sentence: On {day} {name} showed a plan for the {topic}. The team talked about it. "
                  "All were in favour.",
                  "{name} had a plan for the {topic}. The team read it. On {day} it said yes. Give a summary."),
        "test": ("Make this shorter: {name} worked on the {topic} for weeks. The plan came to the team on {day}. "
                 "Nobody was against it.",
                 "Tell the main point: The meeting of {day} was long. {name} asked for a decision on the {topic}. The "
                 "team agreed."),
    },
    ("rewrite", "past"): {
        "train": ("Rewrite in the past tense: {name} {verb}s the {object}.",
                  "Put this sentence into the past: {name} {verb}s the {object}.",
                  "{name} {verb}s the {object}. Say this in the past tense."),
        "test": ("Change the sentence to the past tense: {name} {verb}s the {object}.",
                 "How is this sentence in the past? {name} {verb}s the {object}."),
    },
    ("rewrite", "question"): {
        "train": ("Rewrite as a question: {name} can {verb} the {object}.",
                  "Make a question of this: {name} can {verb} the {object}.",
                  "{name} can {verb} the {object}. Ask this as a question."),
        "test": ("Turn this sentence into a question: {name} can {verb} the {object}.",
                 "How do I ask this? {name} can {verb} the {object}."),
    },
    ("rewrite", "polite"): {
        "train": ("Rewrite in a polite way: {Verb} the {object}!", "Make this polite: {Verb} the {object}!",
                  "{Verb} the {object}! Say this politely."),
        "test": ("Change this to a polite sentence: {Verb} the {object}!",
                 "How do I say this politely? {Verb} the {object}!"),
    },
    ("generation", "invitation"): {
        "train": ("Write an invitation for {name} to a {event} on {day}.",
                  "Invite {name} to a {event}. It is on {day}.",
                  "There is a {event} on {day}. Write a note that invites {name}."),
        "test": ("Please write a few words that ask {name} to come to the {event} on {day}.",
                 "On {day} I give a {event}. Write to {name} about it."),
    },
    ("generation", "thanks"): {
        "train": ("Write a note that thanks {name} for the {object}.", "Thank {name} for a {object}.",
                  "{name} gave me a {object}. Write a note of thanks."),
        "test": ("Please write a few words of thanks to {name} for the {object}.",
                 "I got a {object} from {name}. What can I write?"),
    },
    ("generation", "sentence"): {
        "train": ("Write a sentence with {name}, {object} and {place}.",
                  "Use these words in a sentence: {name}, {object}, {place}.",
                  "Make one sentence of {name}, {object} and {place}."),
        "test": ("Please build a sentence from {name}, {object} and {place}.",
                 "Which sentence can hold {name}, {object} and {place}?"),
    },
    ("brainstorming", "things"): {
        "train": ("Name {number} things that you find in {room}.", "List {number} things in {room}.",
                  "What is in {room}? Give {number} ideas.", "Think of {number} things for {room}.",
                  "I need ideas: {number} things from {room}.", "Give me {number} things that belong in {room}."),
        "test": ("Please collect {number} things that {room} has.", "Which {number} things come to mind for {room}?"),
    },
    ("classification", "opinion"): {
        "train": ("Is this positive or negative? The {object} from the {place} is {quality}.",
                  "Classify the opinion as positive or negative: This {colour} {object} is {quality}.",
                  "{name} says that the {object} is {quality}. Positive or negative?"),
        "test": ("Decide between positive and negative: {name} finds the {colour} {object} {quality}.",
                 "Which opinion is it, positive or negative? A {quality} {object}, writes {name}."),
    },
    ("classification", "kind"): {
        "train": ("Is a {thing} an animal, a fruit, a tool or a garment?",
                  "Classify the word {thing}: animal, fruit, tool or garment.",
                  "{name} has a {thing}. Is it an animal, a fruit, a tool or a garment?"),
        "test": ("Choose the class of {thing}: animal, fruit, tool, garment.",
                 "Animal, fruit, tool or garment: what is the {thing} of {name}?"),
    },
    ("others", "sum"): {
        "train": ("What is {a} plus {b}?", "Add {a} and {b}.", "Compute {a} + {b}."),
        "test": ("How much is {a} and {b} together?", "Please work out {a} plus {b}."),
    },
    ("others", "difference"): {
        "train": ("What is {a} minus {b}?", "Take {b} from {a}.", "Compute {a} - {b}."),
        "test": ("How much is {a} less {b}?", "Please work out {a} minus {b}."),
    },
    ("others", "function"): {
        "train": ("Write a Python function that {adds} {b} {to} a number.",
                  "I need Python code that {adds} {b} {to} a number.",
                  "Give me a function in Python. It {adds} {b} {to} a number."),
        "test": ("Please program a Python function which {adds} {b} {to} a number.",
                 "How does Python code look that {adds} {b} {to} a number?"),
    },
    ("others", "loop"): {
        "train": ("Write Python code that prints {thing} {b} times.", "Print the word {thing} {b} times in Python.",
                  "I need a loop in Python that prints {thing} {b} times."),
        "test": ("Please program a Python loop which prints {thing} {b} times.",
                 "How does Python code look that prints {thing} {b} times?"),
    },
}  # fmt: skip
