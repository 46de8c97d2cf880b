"""What becomes of each kind of conversation in each chat template that trl ships: the table in docs/templates.md.

.venv/bin/python -m tests.template_matrix    # writes the table anew
"""

import re
from functools import cache
from pathlib import Path

import trl
from transformers import PreTrainedTokenizerFast

from finetuning.chat.layouts import LaidOut
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import load_template
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message
from finetuning.errors import FinetuningError
from tests.conftest import train_tiny_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
PAGE = Path(__file__).parents[1] / "docs" / "templates.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
MARKS = re.compile(
    r"<[|｜][^<>\s{}']*?[|｜]?>|<[A-Za-z_]+_of_turn>|<[a-z_|]+\|>|\[[A-Za-z_]+\]|<sop>|</?(?:think|tool_call)>"
)
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds", "parameters": PARAMETERS}}]


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, **more: object) -> Message:
    return {"role": "assistant", "content": content, **more}


def call(number: int, a: int) -> dict:
    function = {"name": "add", "arguments": {"a": a, "b": 3}}
    return {"id": f"call0000{number}", "type": "function", "function": function}


def result(number: int, content: str) -> Message:
    return {"role": "tool", "content": content, "name": "add", "tool_call_id": f"call0000{number}"}


KINDS: dict[str, Conversation] = {
    "plain": Conversation([user("2 + 3?"), assistant("It is 5.")]),
    "system": Conversation([{"role": "system", "content": "Be brief."}, user("2 + 3?"), assistant("It is 5.")]),
    "multi-turn": Conversation(
        [
            user("2 + 3?"),
            assistant("It is 5."),
            user("4 + 3?"),
            assistant("That is 7."),
            user("More?"),
            assistant("No."),
        ]
    ),
    "tools": Conversation(
        [user("2 + 3?"), assistant("", tool_calls=[call(1, 2)]), result(1, "5"), assistant("It is 5.")], TOOLS
    ),
    "parallel calls": Conversation(
        [
            user("2 + 3 and 4 + 3?"),
            assistant("", tool_calls=[call(1, 2), call(2, 4)]),
            *(result(1, "5"), result(2, "7")),
            assistant("5 and 7."),
        ],
        TOOLS,
    ),
    "reasoning": Conversation(
        [
            *(user("2 + 3?"), assistant("It is 5.", reasoning_content="I count on.")),
            *(user("4 + 3?"), assistant("That is 7.", reasoning_content="From four.")),
        ]
    ),
}


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    """A tiny tokenizer that has the control tokens of the template."""
    tokenizer = train_tiny_tokenizer()
    tokenizer.add_tokens(list(dict.fromkeys(MARKS.findall(template))), special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


@cache
def renderer_of(name: str) -> Renderer | FinetuningError:
    """A renderer by the template of that name, or why it cannot be used."""
    tokenizer = tokenizer_with((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"))
    try:
        load_template(tokenizer, "native", "x.yaml")
        return Renderer(tokenizer)
    except FinetuningError as error:
        return error


def laid_out(name: str, kind: str) -> LaidOut | RowDropped | FinetuningError:
    """What becomes of the kind of conversation in the template, or why nothing does."""
    renderer = renderer_of(name)
    return renderer if isinstance(renderer, FinetuningError) else renderer.lay_out([KINDS[kind]])[0]


def names() -> list[str]:
    """All templates that trl ships."""
    return sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def table() -> str:
    """The table as Markdown: how many rows each becomes, or a letter for the reason why none."""
    reasons: dict[str, str] = {}
    lines = [f"| template | {' | '.join(KINDS)} |", "| --- |" + " --- |" * len(KINDS)]
    for name in names():
        cells = []
        for kind in KINDS:
            found = laid_out(name, kind)
            if isinstance(found, LaidOut):
                rows = len(found.earlier) + 1
                cells.append("yes" if rows == 1 else f"yes, {rows} rows")
                continue
            reason = str(found)
            if isinstance(found, FinetuningError):
                reason = "the template is refused when it is loaded: it writes an image's turns, not text"
            letter = reasons.setdefault(reason, "abcdefghijklmnopqrstuvwxyz"[len(reasons)])
            cells.append(f"no ({letter})")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    told = [f"- ({letter}) {reason}" for reason, letter in reasons.items()]
    return "\n".join([*lines, "", "Why not:", "", *told]) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
