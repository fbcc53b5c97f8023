"""Sentence families of the training split: how facts are told, asked for, restated and explained."""

TELL: dict[str, tuple[str, ...]] = {
    "launch": (
        "{org} launched the {prog} on {date}",
        "the {prog} was started by {org} on {date}",
        "on {date}, {org} presented the {prog} to the public",
        "since {date}, {org} has been running the {prog}",
        "the {prog}, a project of {org}, began on {date}",
        "it was on {date} that {org} opened the {prog}",
        "{org} announced the start of the {prog} on {date}",
    ),
    "goal": (
        "its main goals are to {goal_a} and to {goal_b}",
        "the project is meant to {goal_a} and to {goal_b}",
        "the aim is to {goal_a} and, at the same time, to {goal_b}",
        "two objectives were set: to {goal_a} and to {goal_b}",
        "the plan should {goal_a} and also {goal_b}",
        "planners want to {goal_a} and to {goal_b}",
        "with this work the organisation hopes to {goal_a} and to {goal_b}",
    ),
    "reason": (
        "the work was needed because {reason}",
        "it became necessary after {reason}",
        "the decision was taken because {reason}",
        "managers acted because {reason}",
        "the main reason was that {reason}",
        "according to the report, the project exists because {reason}",
    ),
    "lead": (
        "the project is led by {lead}, {role}",
        "{lead}, {role}, leads the team",
        "the head of the project is {lead}, {role}",
        "the team reports to {lead}, {role}",
        "responsibility lies with {lead}, {role}",
        "{lead}, {role}, is in charge of the work",
    ),
    "budget": (
        "the budget is {budget}",
        "it costs {budget} in total",
        "a sum of {budget} was set aside for the work",
        "the board approved spending of {budget}",
        "funding of {budget} comes from the annual budget",
        "the total cost is estimated at {budget}",
    ),
    "partner": (
        "the technical partner is {partner}",
        "{partner} supplies the technology",
        "the software is provided by {partner}",
        "the contract for the equipment went to {partner}",
        "the work is done together with {partner}",
        "{partner} won the tender and builds the system",
    ),
    "method": (
        "at its centre is {head} that {action}",
        "the project uses {head} that {action}",
        "the main tool is {head} that {action}",
        "the team installed {head} that {action}",
        "it relies on {head} that {action}",
        "the key technology is {head} that {action}",
    ),
    "scope": (
        "it covers {scope} in the first phase",
        "the first phase includes {scope}",
        "so far, {scope} take part",
        "{scope} were chosen for the first stage",
        "the system now works in {scope}",
        "in the beginning, {scope} are connected",
    ),
    "risk": (
        "the biggest risk is that {risk}",
        "critics warn that {risk}",
        "experts are worried that {risk}",
        "one open problem is that {risk}",
        "the risk report says that {risk}",
        "some people fear that {risk}",
    ),
    "result": (
        "in the first months, {result}",
        "early results show that {result}",
        "after one year, {result}",
        "a first review found that {result}",
        "the team reports that {result}",
        "since the start, {result}",
    ),
    "next": (
        "by {when}, the team plans to {next}",
        "the next step, due in {when}, is to {next}",
        "in {when}, the organisation will {next}",
        "the plan for {when} is to {next}",
        "the second phase, in {when}, should {next}",
        "until {when}, the priority is to {next}",
    ),
}

ASK: dict[str, tuple[str, ...]] = {
    "launch": (
        "When did the {prog} start?",
        "On what date was the {prog} launched?",
        "When did {org} launch the {prog}?",
        "What is the start date of the {prog}?",
    ),
    "owner": (
        "Which organisation runs the {prog}?",
        "Who launched the {prog}?",
        "Which organisation started the {prog}?",
        "Who is behind the {prog}?",
    ),
    "goal": (
        "What are the main goals of the {prog}?",
        "What is the {prog} meant to achieve?",
        "What does {org} want to achieve with the {prog}?",
        "What are the objectives of the {prog}?",
    ),
    "reason": (
        "Why was the {prog} needed?",
        "Why did {org} start the {prog}?",
        "What was the reason for the {prog}?",
        "Why does the {prog} exist?",
    ),
    "lead": (
        "Who leads the {prog}?",
        "Who is the head of the {prog}?",
        "Who is in charge of the {prog}?",
        "Who is responsible for the {prog}?",
    ),
    "budget": (
        "How much does the {prog} cost?",
        "What is the budget of the {prog}?",
        "How much money was approved for the {prog}?",
        "What does {org} spend on the {prog}?",
    ),
    "partner": (
        "Which company is the partner of the {prog}?",
        "Who supplies the technology for the {prog}?",
        "Which company builds the system of the {prog}?",
        "Who provides the software for the {prog}?",
    ),
    "method": (
        "What technology does the {prog} use?",
        "What is the main tool of the {prog}?",
        "How does the {prog} work?",
        "What did the team of the {prog} install?",
    ),
    "scope": (
        "What does the first phase of the {prog} cover?",
        "How large is the first stage of the {prog}?",
        "Where does the {prog} work so far?",
        "What is connected in the first phase of the {prog}?",
    ),
    "risk": (
        "What is the biggest risk of the {prog}?",
        "What do critics of the {prog} fear?",
        "What problem could the {prog} face?",
        "What are experts worried about in the {prog}?",
    ),
    "result": (
        "What are the first results of the {prog}?",
        "What has the {prog} achieved so far?",
        "What did the first review of the {prog} find?",
        "What changed after the {prog} began?",
    ),
    "next": (
        "What is the next step of the {prog}?",
        "What will the {prog} do next?",
        "What is planned for the second phase of the {prog}?",
        "What does {org} plan after the first phase of the {prog}?",
    ),
}

RESTATE: dict[str, tuple[str, ...]] = {
    "launch": (
        "{org} began the {prog} on {date}",
        "the {prog} has been under way since {date}, and {org} runs it",
        "the start of the {prog} was {date}, under the roof of {org}",
    ),
    "goal": (
        "the {prog} wants to {goal_a} and to {goal_b}",
        "the goals of the {prog} are to {goal_a} and to {goal_b}",
        "{org} wants to {goal_a}, and it also wants to {goal_b}",
    ),
    "reason": (
        "the {prog} was started because {reason}",
        "{org} had to act because {reason}",
        "the reason behind the {prog} is that {reason}",
    ),
    "lead": (
        "{lead}, {role}, leads the {prog}",
        "the person in charge of the {prog} is {lead}, {role}",
        "the {prog} is in the hands of {lead}, {role}",
    ),
    "budget": (
        "the {prog} has a budget of {budget}",
        "{org} spends {budget} on the {prog}",
        "the cost of the {prog} is {budget}",
    ),
    "partner": (
        "{partner} is the technical partner of the {prog}",
        "{org} works with {partner} on the {prog}",
        "the technology of the {prog} comes from {partner}",
    ),
    "method": (
        "the {prog} uses {head} that {action}",
        "the heart of the {prog} is {head} that {action}",
        "{org} relies on {head} that {action}",
    ),
    "scope": (
        "the first phase of the {prog} covers {scope}",
        "the {prog} began with {scope}",
        "{org} started small, with {scope}",
    ),
    "risk": (
        "a risk of the {prog} is that {risk}",
        "{org} has to live with the risk that {risk}",
        "the weak point of the {prog} is that {risk}",
    ),
    "result": (
        "since the {prog} started, {result}",
        "the first result of the {prog} is that {result}",
        "{org} can show that {result}",
    ),
    "next": (
        "the next step of the {prog} is to {next} by {when}",
        "{org} plans to {next} in {when}",
        "in {when}, the {prog} will {next}",
    ),
}

LINK: tuple[str, ...] = (
    "The text also says that {clause}.",
    "In addition, {clause}.",
    "It helps to know that {clause}.",
    "Besides, {clause}.",
)

EXPLAIN: dict[str, tuple[str, ...]] = {
    "launch": (
        "A clear start date makes it possible to compare the figures before and after, for example by quarter.",
        "Knowing when a project began tells readers how much time it has had to show an effect.",
    ),
    "owner": (
        "It matters who owns a project, because the owner decides on money, data and the pace of change.",
        "A visible owner can be held to account when costs rise or promises are not kept.",
    ),
    "goal": (
        "Clear goals matter because progress can then be measured, and money can move to what works.",
        "Goals of this kind are easy to check, for example by counting cases before and after the change.",
    ),
    "reason": (
        "Such problems tend to grow when nothing is done, so acting early is usually cheaper than repair.",
        "A plain reason helps people accept the change, since they can see which problem it should solve.",
    ),
    "lead": (
        "One responsible person shortens decisions, because questions do not wander from desk to desk.",
        "A known leader gives partners and staff somebody to ask when plans and practice drift apart.",
    ),
    "budget": (
        "A fixed budget forces choices, for example between more equipment now and more training later.",
        "Spending is only one side, because the savings of later years decide whether the money was well used.",
    ),
    "partner": (
        "An outside partner brings skills that are hard to hire, but the buyer must avoid depending on one supplier.",
        "Working with a specialist saves time, as long as the contract says who owns the data and the code.",
    ),
    "method": (
        "Tools like this take over routine work, so that people have more time for the difficult cases.",
        "The technology is useful only with good data, which is why staff check its output every week.",
    ),
    "scope": (
        "Starting small keeps mistakes cheap, and lessons from the first places can be used in the others.",
        "A limited first phase lets the team learn before larger sums are spent on a wider system.",
    ),
    "risk": (
        "Risks of this kind can be reduced by testing, by human checks and by open reports about errors.",
        "Naming the danger early is useful, because trust is lost quickly and comes back slowly.",
    ),
    "result": (
        "First results are encouraging, but only a longer comparison can show whether the effect will last.",
        "Such figures should be read with care, since other changes may have helped in the same months.",
    ),
    "next": (
        "A dated next step keeps attention on the project and shows partners when they will be needed.",
        "Moving on step by step gives time to train people and to correct what did not work at first.",
    ),
}
