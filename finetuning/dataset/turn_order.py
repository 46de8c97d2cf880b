"""Checks the order of a conversation: what may come after what, how many turns there are, and that each is said."""

from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message

# What may come after what; a conversation begins after None.
FOLLOWING = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
# Each answer is rendered with all that precedes it, so that time grows with the square of the turns.
MOST_TURNS = 1_000
# White space, and marks that no reader sees.
BLANK = "".join(map(chr, [*range(0x21), 0x7F, 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F])) + (
    "\u205f\u2060\u3000\ufeff"
)


def require_order(conversation: list[Message]) -> None:
    """Check that user and assistant speak by turns, the assistant last, and nobody says what no reader sees.

    Raises:
        RowDropped: the first turn that is not in order.
    """
    if len(conversation) > MOST_TURNS:
        raise RowDropped(f"more than {MOST_TURNS} turns")
    before = None
    for number, turn in enumerate(conversation):
        role = turn["role"]
        if role not in FOLLOWING[before]:
            raise RowDropped(_disorder(before, role), f"turn {number}")
        if not turn["content"].strip(BLANK) and not (turn.get("tool_calls") or role == "tool"):
            raise RowDropped(f"empty {'answer' if role == 'assistant' else f'{role} turn'}", f"turn {number}")
        before = role
    if before is None:
        raise RowDropped("no turns at all")
    if before != "assistant":
        raise RowDropped(f"ends with a {before} turn, not with an answer", f"turn {len(conversation) - 1}")


def _disorder(before: str | None, role: str) -> str:
    if role == "system":
        return "a system message that is not the first"
    if before == role:
        return f"two {role} turns in a row"
    return f"{'an' if role == 'assistant' else 'a'} {role} turn {f'after the {before} turn' if before else 'first'}"
