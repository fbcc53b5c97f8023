"""The chat format of the pocket base, as a template for tokenizers and as a plain function for the corpus."""

from collections.abc import Sequence

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
DEFAULT_SYSTEM = "You are a helpful assistant."

# ChatML with a default system turn, the form Qwen2 uses.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def render(messages: Sequence[tuple[str, str]]) -> str:
    """(role, content) pairs as text, equal to the template's output without a generation prompt."""
    if messages[0][0] != "system":
        messages = (("system", DEFAULT_SYSTEM), *messages)
    return "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in messages)
