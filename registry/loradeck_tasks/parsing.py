"""Parsing: from generated text to the answer that a caller gets."""

from loradeck_tasks.task import Task


def parse_answer(task: Task, text: str) -> str:
    """The answer in a whole generated text: cut before the first stop string, then stripped of outer white space."""
    return cut_at_stop(text, task.stop)[0].strip()


def cut_at_stop(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """`text` up to the first of the stop strings, and whether there was one."""
    found = [position for string in stop if string and (position := text.find(string)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def held_back(text: str, stop: tuple[str, ...]) -> int:
    """Number of characters at the end of `text` that may turn out to be the start of a stop string.

    A stream shows all but these, and waits for more text to decide.
    """
    longest = 0
    for string in stop:
        for length in range(min(len(string) - 1, len(text)), longest, -1):
            if text.endswith(string[:length]):
                longest = length
                break
    return longest
