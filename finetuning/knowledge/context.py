"""The prompt that has passages in it, made by one function for training, exam and use; and what answers say of them.

"Which?" -> "Answer the question from these passages alone …\\n\\n[1] Reset\\nPress …\\n\\nQuestion: Which?"
"""

import re
from collections.abc import Sequence

from finetuning.dataset.turns import Message
from finetuning.knowledge.passages import Passage
from finetuning.recipe.knowledge import ContextSpec

# After white space or a sign, or at the beginning: `rows[1]` names no passage.
CITATIONS = re.compile(r"(?:[ \t]+|(?<=[.,;:!?)\"'\n])|^)((?:\[\d{1,2}\])+)")
EMPHASIS = re.compile(r"[*`_]")
NONE_FOUND = "(no passage was found)"


def with_passages(question: str, passages: Sequence[Passage], spec: ContextSpec) -> str:
    """Return what the user's turn says: what is asked for, the passages with their numbers, and the question.

    >>> passage = Passage("kettle.md", "Care", "Clean it.", 0)
    >>> print(with_passages("How?", [passage], ContextSpec()))
    Answer the question from these passages alone, in a few words, and name the passage, as in [2]. If they do not say \
it, answer: The documents do not say.
    <BLANKLINE>
    [1] Care
    Clean it.
    <BLANKLINE>
    Question: How?
    """
    cite = ", and name the passage, as in [2]" if spec.citations else ""
    asked = f"Answer the question from these passages alone, in a few words{cite}. If they do not say it, answer: "
    shown = [f"[{number}] {passage.shown}" for number, passage in enumerate(passages, 1)]
    return "\n\n".join([asked + spec.refusal, *(shown or [NONE_FOUND]), f"Question: {question}"])


def has_words(text: str, words: str) -> bool:
    """Whether the words are in a text, not within a word or number, whatever case, emphasis and white space.

    >>> has_words("It weighs **13 kg**.", "13  KG"), has_words("It weighs 13 kg.", "3 kg")
    (True, False)
    """
    plain, wanted = (" ".join(EMPHASIS.sub("", one).split()).casefold() for one in (text, words))
    # Nor within a number with a decimal point: 8 is not in 8.5.
    within = rf"(?<!\w)(?<!\d[.,]){re.escape(wanted.rstrip('.'))}(?!\w)(?![.,]\d)"
    return bool(wanted.strip(" .")) and re.search(within, plain) is not None


def question_of(messages: Sequence[Message]) -> int | None:
    """Return the number of the turn that is asked with passages: the user's last one; None where there is none."""
    return next((n for n in range(len(messages) - 1, -1, -1) if messages[n]["role"] == "user"), None)


def asked_with(messages: Sequence[Message], passages: Sequence[Passage], spec: ContextSpec) -> list[Message]:
    """Return the messages with the passages in the user's last turn. Those before it are as they were said."""
    last = question_of(messages)
    return [
        message | {"content": with_passages(message["content"], passages, spec)} if number == last else message
        for number, message in enumerate(messages)
    ]


def cited(answer: str, number: int) -> str:
    """Return an answer that names its passage.

    >>> cited("18 months", 2)
    '18 months [2]'
    """
    return f"{answer.rstrip()} [{number}]"


def citations_in(answer: str) -> list[int]:
    """Return the numbers of the passages that an answer names, each once.

    >>> citations_in("18 months [2], or 20 [1][2]")
    [2, 1]
    """
    return list(dict.fromkeys(int(number) for cited in CITATIONS.findall(answer) for number in cited[1:-1].split("][")))


def without_citations(answer: str) -> str:
    """Return an answer without the numbers of passages.

    >>> without_citations("18 months [2]. See rows[1].[3]")
    '18 months. See rows[1].'
    """
    return CITATIONS.sub("", answer)


def refuses(answer: str, spec: ContextSpec) -> bool:
    """Whether an answer says that the documents do not say it."""
    plain, refusal = (
        " ".join(without_citations(text).split()).strip(" .").casefold() for text in (answer, spec.refusal)
    )
    return refusal in plain
