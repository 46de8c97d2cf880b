"""The prompt that has passages in it, made by one function for training, exam and use; and what answers say of them.

"Which?" -> "Answer the question from these passages alone …\\n\\n[1] Reset\\nPress …\\n\\nQuestion: Which?"
"""

import math
import re
from collections.abc import Sequence

from finetuning.dataset.turns import Message
from finetuning.knowledge.passages import Passage
from finetuning.recipe.knowledge import ContextSpec

# [1], [1, 2] and 【1】, several in a row, and emphasis around one or all of them.
_NUMBERS = r"\d{1,2}(?:[^\S\n]*[,;][^\S\n]*\d{1,2})*"
_ONE = rf"(?:\[{_NUMBERS}\]|【{_NUMBERS}】)"
_RUN = (
    r"(?P<run>(?P<all>[*_`]{0,3})(?P<first>[*_`]{0,3})" + _ONE + r"(?P=first)"
    r"(?:[^\S\n]*[,;]?[^\S\n]*(?P<next>[*_`]{0,3})" + _ONE + r"(?P=next))*(?P=all))"
)
_CLOSE = "[*_\"'”’)]*"
# After white space or a sign, or at the beginning: `rows[1]` names no passage.
NAMED = re.compile(rf"(?<![\w\]】]){_RUN}")
# At the end of a line or sentence, before its full stop or after it; `x = [1]` is no citation.
AT_END = re.compile(
    rf"(?<![\s\]】=+<>(,:&|/-])\s*+{_RUN}"
    rf"(?:(?={_CLOSE}(?:[.!?…]+{_CLOSE}(?!\S)|[。！？]|[^\S\n]*$))|(?P<within>(?=[^\S\n]+[^\sa-zß-ÿ])))",
    re.MULTILINE,
)
STOPPED = re.compile(r"[.!?…。！？][*_\"'”’)]{0,3}\Z")
# With the backslash that shows that a sign is none of Markdown's.
EMPHASIS = re.compile(r"[*`_]|\\(?=[#<=\[-])")
MOST_CITED = 99
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


def citations_in(answer: str, shown: int = MOST_CITED) -> list[int]:
    """Return the numbers of the passages that an answer names, each once.

    Args:
        shown: the number of passages that it was asked with.

    >>> citations_in("18 months [2], or 20 [1][2]"), citations_in("18 months[1, 3]. See rows[2] too")
    ([2, 1], [1, 3])
    """
    found = {match.end("run"): match["run"] for match in NAMED.finditer(answer)}
    found |= {match.end("run"): match["run"] for match in AT_END.finditer(answer) if _is_citation(match)}
    numbers = [number for end in sorted(found) for number in _numbers(found[end])]
    return list(dict.fromkeys(number for number in numbers if 1 <= number <= shown))


def without_citations(answer: str, shown: int = MOST_CITED) -> str:
    """Return an answer without the citations at the end of it, and of its lines and sentences.

    Args:
        shown: the number of passages that it was asked with. Others were not cited.

    >>> without_citations("18 months [2]. See rows[1].[3]"), without_citations("18 months**[1]**, [2]")
    ('18 months. See rows[1].', '18 months')
    >>> without_citations("18 [4]", shown=3), without_citations("x = [1]"), without_citations("[1]")
    ('18 [4]', 'x = [1]', '[1]')
    """

    def kept(match: re.Match[str]) -> str:
        known = all(1 <= number <= shown for number in _numbers(match["run"]))
        return "" if known and _is_citation(match) else match[0]

    found = AT_END.sub(kept, answer)
    return found if any(map(str.isalnum, found)) else answer


def without_citations_beside(answer: str, expected: str, shown: int) -> str:
    """Return an answer without its citations; brackets that the expected one ends in, too, are none.

    >>> without_citations_beside("use argv[1] [2]", "use argv[1]", 3), without_citations_beside("7 [1]", "8", 3)
    ('use argv[1]', '7')
    """
    if expected and answer.startswith(expected) and not without_citations(f"x{answer[len(expected) :]}", shown)[1:]:
        return expected
    return without_citations(answer, shown)


def as_compared(
    answer: str, reference: str, golden: Sequence[int], rank: int | None, spec: ContextSpec
) -> tuple[str, str]:
    """Return an answer and its reference as they are compared: without the numbers of passages.

    A reference is as its row has it: what `cited` added is taken off, and no other bracket. Rows that name no document
    have no citations.

    Args:
        golden: the places of the passages that have the answer, among those that were shown.
        rank: where the first of these was found; None where there is none to be found.

    >>> as_compared("18 months [1]", "18 months [2]", [2], 1, ContextSpec())
    ('18 months', '18 months')
    """
    if rank is None and reference != spec.refusal:
        return answer, reference
    if golden and spec.citations:
        reference = reference.removesuffix(cited("", golden[0]))
    return without_citations_beside(answer, reference, spec.passages), reference


def cites_right(answer: str, golden: Sequence[int], spec: ContextSpec) -> float:
    """Return 1 where an answer names a passage that has it, else 0; no number where none was shown.

    >>> cites_right("18 months [2]", [2, 3], ContextSpec()), cites_right("18 months", [2], ContextSpec())
    (1.0, 0.0)
    """
    return float(not set(golden).isdisjoint(citations_in(answer, spec.passages))) if golden else math.nan


def _numbers(run: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", run)]


def _is_citation(match: re.Match[str]) -> bool:
    """Whether it ends a sentence, and is not the index of an answer that is one word: `argv[1]`."""
    text, start = match.string, match.start()
    if match["within"] is not None and not STOPPED.search(text[max(0, start - 4) : start]):
        return False
    is_index = start == match.start("run") and text[start - 1 : start].isalpha() and match["run"][0] == "["
    return not is_index or len(text[:start].split()) > 1


def refuses(answer: str, spec: ContextSpec) -> bool:
    """Whether an answer says that the documents do not say it."""
    said, uncited, refusal = (
        " ".join(text.split()).strip(" .").casefold()
        for text in (answer, without_citations(answer, spec.passages), spec.refusal)
    )
    return refusal in said or refusal in uncited
