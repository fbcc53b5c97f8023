"""The format blind, as in Anyscale's comparison of prompts: question and answer between marks, no words."""

from loradeck_tasks.task import Task

BLIND = ("<START_Q>", "<END_Q>", "<START_A>", "<END_A>")
"""Its new tokens."""


def answer_end(task: Task) -> str:
    """What an answer ends with before the end of the turn: format blind's last mark, else nothing."""
    added = {token.content for token in task.added_tokens}
    return BLIND[3] if task.format == "plain" and added.issuperset(BLIND) and BLIND[3] in task.stop else ""
