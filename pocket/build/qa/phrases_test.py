"""Sentence families of the test split: same kinds of facts as in training, every wording different."""

TELL: dict[str, tuple[str, ...]] = {
    "launch": (
        "the {prog} has been in operation since {date}, when {org} gave it the green light",
        "{date} marked the launch of the {prog} by {org}",
        "{org} rolled out the {prog} on {date} after long preparation",
        "first steps of the {prog} were taken by {org} on {date}",
    ),
    "goal": (
        "the declared goals are to {goal_a} as well as to {goal_b}",
        "its purpose is to {goal_a} and, beyond that, to {goal_b}",
        "everyone involved wants to {goal_a} while trying to {goal_b}",
        "its objectives are to {goal_a} and then to {goal_b}",
    ),
    "reason": (
        "what triggered the effort was that {reason}",
        "officials justified the move because {reason}",
        "in the background stood a simple fact, namely that {reason}",
        "nobody could wait any longer because {reason}",
    ),
    "lead": (
        "day-to-day leadership is with {lead}, {role}",
        "the person who leads everything is {lead}, {role}",
        "{lead}, {role}, heads a small project office",
        "all decisions go through {lead}, {role}",
    ),
    "budget": (
        "its price tag is {budget}",
        "supervisors released {budget} as a budget for three years",
        "altogether {budget} will be spent on it",
        "the bill, at a cost of {budget}, is paid from reserves",
    ),
    "partner": (
        "{partner} was hired as supplier",
        "the hardware and software come from {partner}",
        "as a partner for the technical side, {partner} was selected",
        "engineers of {partner} build and maintain the system",
    ),
    "method": (
        "technically, everything depends on {head} that {action}",
        "engineers put in place {head} that {action}",
        "most of the effect is owed to {head} that {action}",
        "the chosen tool, {head} that {action}, is already running",
    ),
    "scope": (
        "the opening phase is limited to {scope}",
        "to begin with, {scope} have joined",
        "a trial stage involves {scope}",
        "{scope} belong to the first wave",
    ),
    "risk": (
        "sceptics point out the risk that {risk}",
        "it cannot be ruled out that {risk}",
        "an internal memo raises the fear that {risk}",
        "observers see a danger that {risk}",
    ),
    "result": (
        "half a year later, {result}",
        "as a first result, {result}",
        "an audit of early figures found that {result}",
        "meanwhile, {result}",
    ),
    "next": (
        "from {when} onwards, the intention is to {next}",
        "what comes next, probably in {when}, is to {next}",
        "a follow-up phase starting in {when} is going to {next}",
        "before the end of {when}, managers intend to {next}",
    ),
}

ASK: dict[str, tuple[str, ...]] = {
    "launch": (
        "Since when has the {prog} been running, and on which date did it start?",
        "What was the launch date of the {prog}?",
    ),
    "owner": ("Whose project is the {prog}, which organisation launched it?", "Which body is running the {prog}?"),
    "goal": ("Which goals does the {prog} pursue?", "What is the purpose of the {prog}, what are its main goals?"),
    "reason": ("Why did somebody decide to start the {prog}?", "For what reason was the {prog} begun?"),
    "lead": ("Which person leads the {prog}?", "Who heads the {prog} and is in charge of it?"),
    "budget": ("How much money does the {prog} cost in all?", "How big is the budget of the {prog}?"),
    "partner": (
        "Which company was picked as technical partner of the {prog}?",
        "Which supplier provides the technology of the {prog}?",
    ),
    "method": ("Which technology is used in the {prog}?", "What tool does the {prog} rely on?"),
    "scope": (
        "How many sites does the first phase of the {prog} include?",
        "What belongs to the first stage of the {prog}?",
    ),
    "risk": ("Which risk is seen in the {prog}?", "What do people fear about the {prog}?"),
    "result": ("Which first results does the {prog} show?", "What did the {prog} achieve in its first months?"),
    "next": ("Which step of the {prog} comes next?", "What is planned next in the {prog}?"),
}

RESTATE: dict[str, tuple[str, ...]] = {
    "launch": (
        "the launch of the {prog} by {org} took place on {date}",
        "{date} is the day on which {org} set the {prog} in motion",
    ),
    "goal": (
        "with the {prog}, {org} intends to {goal_a} and to {goal_b}",
        "there are two goals in the {prog}, namely to {goal_a} and to {goal_b}",
    ),
    "reason": (
        "the {prog} answers a problem: {reason}",
        "{org} decided in favour of the {prog} because {reason}",
    ),
    "lead": (
        "leadership of the {prog} belongs to {lead}, {role}",
        "{lead}, {role}, heads the {prog}",
    ),
    "budget": (
        "for the {prog} {org} pays {budget}",
        "{budget} is what the {prog} costs",
    ),
    "partner": (
        "the {prog} is built with the help of {partner}",
        "{partner} acts as supplier to the {prog}",
    ),
    "method": (
        "in the {prog}, {org} employs {head} that {action}",
        "technically the {prog} rests on {head} that {action}",
    ),
    "scope": (
        "{scope} form the first wave of the {prog}",
        "at the outset the {prog} is limited to {scope}",
    ),
    "risk": (
        "people connected with the {prog} worry that {risk}",
        "for the {prog} the danger remains that {risk}",
    ),
    "result": (
        "thanks to the {prog}, {result}",
        "what the {prog} has brought so far: {result}",
    ),
    "next": (
        "from {when} the {prog} is going to {next}",
        "{org} wishes to {next}, starting in {when}",
    ),
}

LINK: tuple[str, ...] = (
    "Furthermore, we read that {clause}.",
    "As a piece of background, {clause}.",
    "One more detail is relevant here: {clause}.",
)

EXPLAIN: dict[str, tuple[str, ...]] = {
    "launch": ("Dates like this one anchor any evaluation, as earlier and later periods can be set side by side.",),
    "owner": ("Ownership counts, for whoever runs such a scheme controls its finances, its records and its speed.",),
    "goal": (
        "Targets that can be verified guide investment, and they protect a scheme from growing in all directions.",
    ),
    "reason": (
        "Left alone, difficulties like these become expensive, which explains why hesitation would have been unwise.",
    ),
    "lead": ("When a single manager answers for everything, conflicts between departments are settled much faster.",),
    "budget": ("Money alone proves little, so the outlay has to be weighed against what is saved afterwards.",),
    "partner": (
        "Specialist firms shorten development, though buyers ought to keep documentation and interfaces open.",
    ),
    "method": ("Automation of repetitive steps pays off when employees supervise it and feed corrections back.",),
    "scope": ("A modest beginning limits damage from early errors and produces experience for a larger stage.",),
    "risk": (
        "Independent reviews, careful trials and candid communication are the usual remedies in such situations.",
    ),
    "result": (
        "Promising numbers still need confirmation over several seasons before anybody should generalise them.",
    ),
    "next": ("Publishing an intended milestone creates healthy pressure and allows outsiders to prepare in time.",),
}
