"""What `validate` looks at beyond a recipe's own rules: the files that it names, and the other recipes.

phi-2, phi-2-copy: hub.repo: 'phi-2-basic-maths' is the repo of each, and none publishes over another; rename one
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from finetuning.evaluation.benchmark_tasks import require_names
from finetuning.errors import FinetuningError
from finetuning.recipe.recipe import CHAT_TEMPLATES, Recipe


def require_named(recipe: Recipe) -> None:
    """Nothing, when the chat template and the benchmarks that the recipe names are there; no network is asked.

    Raises:
        FinetuningError: they are not.
    """
    require_names(recipe.evaluation, recipe.file)
    template = recipe.base_model.chat_template
    shipped = template == "native" or (CHAT_TEMPLATES / f"{template}.jinja").is_file()
    if not shipped and not Path(template).expanduser().is_file():
        raise FinetuningError(
            f"{recipe.file}: base_model.chat_template: {template!r} is no file (looked in {Path.cwd()})"
        )


def shared_repos(recipes: Iterable[Recipe]) -> Iterator[str]:
    """A line for each repo that more than one recipe would publish to."""
    owners: dict[str, list[str]] = {}
    for recipe in recipes:
        for repo in (recipe.hub.repo, *([f"{recipe.hub.repo}-merged"] if recipe.merge else [])):
            owners.setdefault(repo, []).append(recipe.name)
    for repo, names in owners.items():
        if len(names) > 1:
            who = ", ".join(names)
            yield f"{who}: hub.repo: {repo!r} is the repo of each, and none publishes over another; rename one"
