"""What people preferred, as the assistant collected it: the measure of a judge.

{"messages": […], "answers": [{"model": "maths", …}, {"model": "maths/base", …}], "preferred": "maths"}
-> one pair, of which the second answer is the better one
"""

from collections.abc import Iterator

from finetuning.chat.answers import split_thought
from finetuning.feedback.entries import Entry, entries, folder_of
from finetuning.judge.protocol import Pair, digest_of
from finetuning.recipe.dataset import sources
from finetuning.recipe.loading import adapters_named, load
from finetuning.recipe.recipe import Recipe

BATCH = 10


def feedback_of(recipe: Recipe) -> str:
    """The name of the feedback by which the recipe's judge is measured."""
    named = recipe.evaluation.judge.choices if recipe.evaluation.judge else None
    return named or (recipe.feedback.name if recipe.feedback else None) or recipe.name


def feedback_learned(name: str) -> Iterator[tuple[str, str]]:
    """Each feedback that a recipe's adapter learned from, and the recipe: it, or one that it goes on from or merges."""
    waiting, seen = [name], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        recipe = load(name)
        waiting += adapters_named(recipe)
        yield from ((name, source.feedback) for source, _ in sources(recipe.dataset).values() if source.feedback)


def human_choices(recipe: Recipe) -> list[Pair]:
    """Return pairs of which people preferred the second answer: whole tens of them, the last ones.

    Raises:
        FinetuningError: the feedback's name is none.
    """
    if recipe.evaluation.judge is None:
        return []
    found = [pair for entry in entries(folder_of(feedback_of(recipe))) for pair in pairs_of(entry)]
    return found[: len(found) // BATCH * BATCH][-recipe.evaluation.judge.max_choices :]


def pairs_of(entry: Entry) -> list[Pair]:
    """Return an entry's choice beside each other answer that was shown; none where nobody chose."""
    if entry.preferred is None:
        return []
    chosen = split_thought(entry.answer_of(entry.preferred) or "")[1]
    others = [split_thought(said.content)[1] for said in entry.answers if said.model != entry.preferred]
    pairs = [Pair(entry.messages, other, chosen) for other in others]
    return [pair for pair in pairs if not pair.is_same]


def revision_of(pairs: list[Pair]) -> str:
    """Return a text that is another one for other choices: `40 choices 9f86d081884c7d65`."""
    return f"{len(pairs)} choices {digest_of([[[*pair.messages], pair.first, pair.second] for pair in pairs])[:16]}"
