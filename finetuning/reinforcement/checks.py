"""Whether answers to the rows of the train split can be rewarded, asked before anything is trained."""

from itertools import islice
from pathlib import Path

from finetuning.chat.answers import split_thought
from finetuning.errors import FinetuningError
from finetuning.evaluation.metrics import final_answer
from finetuning.evaluation.python_tests import asserts_of, require_confinement
from finetuning.evaluation.references import Reference
from finetuning.recipe.recipe import Recipe
from finetuning.reinforcement.prompts import references

LOOKED_AT = 10_000  # rows


def require_rewards(recipe: Recipe, chat_dataset: Path, processes: int) -> None:
    """Check that the recipe's reward can be told of the rows, and that there are enough of them for a step.

    Raises:
        FinetuningError: there are fewer rows than a step asks questions; or of `final-answer` a row states none, of
            `python-tests` a row has no test, or code cannot be confined on this machine.
    """
    spec = recipe.training
    found = [Reference(place, split_thought(text)[1]) for place, text in islice(references(chat_dataset), LOOKED_AT)]
    answers = spec.per_device_train_batch_size * spec.gradient_accumulation_steps * processes
    asked = answers // spec.num_generations
    if len(found) < asked:
        raise FinetuningError(
            f"{recipe.file}: training.per_device_train_batch_size: a step draws {answers} answers to {asked} "
            f"questions, and the train split has {len(found)} rows, so that there would be no step. Write a smaller "
            "number, or more rows."
        )
    if "final-answer" in spec.reward:
        markers = recipe.evaluation.answer_markers
        refusal = recipe.context.refusal if recipe.context else None
        _require(
            recipe,
            [one for one in found if one.text != refusal and final_answer(one.text, markers) is None],
            len(found),
            "final-answer: {} of {} train rows state no final answer, so that no answer to them would be right; the "
            "first is {}. End them with `#### ` and the answer, name the words before it in evaluation.answer_markers, "
            "or write another term, such as chrf.",
        )
    if "python-tests" in spec.reward:
        _require(
            recipe,
            [reference for reference in found if not asserts_of(reference.text)],
            len(found),
            "python-tests: {} of {} train rows have no `assert`, so that any code that ends would be rewarded; the "
            "first is {}. Write asserts after their code, or another term.",
        )
        require_confinement(recipe.file)


def _require(recipe: Recipe, wrong: list[Reference], rows: int, said: str) -> None:
    if wrong:
        raise FinetuningError(f"{recipe.file}: training.reward: {said.format(len(wrong), rows, wrong[0].shown())}")
