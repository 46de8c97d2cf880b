"""Finds in what a chat template writes what the model has to say: all that comes after the generation prompt.

prompt "…<|im_start|>assistant\\n", whole "…<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n5<|im_end|>\\n"
-> "<think>\\n\\n</think>\\n\\n5<|im_end|>\\n"

A prompt may end in a thought that it opens, or that it leaves empty, where the whole conversation has none: what was
thought then belongs to the answer, or there is none.
"""

import re

from finetuning.dataset.row_faults import RowDropped

# What a generation prompt may end in: a thought that the model goes on with, or one that it is not to have.
OPENED = re.compile(r"<(think|thinking|thought|reasoning)>\s*$")
CLOSED = re.compile(r"(?:<(think|thinking|thought|reasoning)>\s*</\1>|<\|channel>thought\s*<channel\|>)\s*$")
# As DeepSeek-R1 answers: its prompt opened the thought.
UNOPENED = re.compile(r"((?:(?!<think>).)*?)</think>", re.DOTALL)
THOUGHT = re.compile(r"\s*<(think|thinking|thought|reasoning)>(.*?)</\1>", re.DOTALL)


def answer_in(prompt: str, whole: str, reasoning: str = "") -> str | None:
    """Return what follows the generation prompt, where `whole` is the conversation with its answer.

    None where that cannot be told, because the template writes something else before an answer than in a prompt.

    Args:
        reasoning: what was thought before the answer.

    Raises:
        RowDropped: something was thought, and the prompt says not to think.
    """
    closed = CLOSED.search(prompt)
    if closed and reasoning.strip():
        raise RowDropped(
            "the generation prompt leaves out thinking, and the row has reasoning: write chat.template_kwargs: "
            "{enable_thinking: true}, or leave reasoning_content out of the data"
        )
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    opened = OPENED.search(prompt)
    found = opened or closed
    if found is None or not whole.startswith(prompt[: found.start()]):
        return None
    said = whole[found.start() :]
    if opened and said.startswith(f"<{opened[1]}>"):
        return said.removeprefix(f"<{opened[1]}>").lstrip()
    if opened:
        return f"{reasoning.strip()}\n</{opened[1]}>\n\n{said}"
    return said[thought.end() :].lstrip() if (thought := THOUGHT.match(said)) else said


def without_thought(prompt: str) -> str:
    """Return a prompt without the thought that it opens, or leaves empty, at its end."""
    found = OPENED.search(prompt) or CLOSED.search(prompt)
    return prompt[: found.start()] if found else prompt


def split_thought(content: str) -> tuple[str, str]:
    """Return what was thought at the beginning of a text, up to its closing tag, and the text without it.

    >>> split_thought("<think>\\nTwice.\\n</think>\\n\\n8"), split_thought("Twice.</think>8")
    (('Twice.', '8'), ('Twice.', '8'))
    """
    if found := THOUGHT.match(content):
        return found[2].strip(), content[found.end() :].lstrip()
    found = UNOPENED.match(content) if "</think>" in content else None
    return (found[1].strip(), content[found.end() :].lstrip()) if found else ("", content)
