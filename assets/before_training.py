"""What is asked before a training is paid for: whether what follows it could only fail."""

from assets.judging import judging_artifacts
from finetuning.evaluation.benchmark_tasks import load_benchmarks, require_benchmark_rows
from finetuning.evaluation.python_tests import require_confinement
from finetuning.progress import Progress
from finetuning.recipe.recipe import Recipe
from resources.artifacts import Artifacts
from resources.store.artifact import Artifact, Log


def require_use(
    recipe: Recipe,
    artifacts: Artifacts,
    chat_dataset: Artifact,
    base_model: Artifact,
    log: Log,
    processes: int = 1,
) -> None:
    """Check that what is made of these can be examined and, where the recipe asks for it, rewarded or merged.

    Args:
        processes: how many train together.

    Raises:
        FinetuningError: it cannot, or one of the two was changed since it was made.
    """
    for artifact in (chat_dataset, base_model):
        artifact.verify()
    from finetuning.chat.tokenizer import saved_tokenizer
    from finetuning.evaluation.references import references_of, require_answerable, require_rows, with_metrics
    from finetuning.memory.reach import require_reach

    if recipe.merge and recipe.merge.gguf:
        from finetuning.merge.gguf_file import require_exportable

        require_exportable(base_model.path, chat_dataset.path / "tokenizer", recipe.file)
    require_reach(recipe, chat_dataset.path, base_model.path)
    references = references_of(chat_dataset.path, recipe.evaluation.rows, recipe.chat.train_on_reasoning)
    spec = with_metrics(recipe, references, log).evaluation
    tokenizer = saved_tokenizer(chat_dataset.path / "tokenizer", recipe.base_model.trust_remote_code)
    require_answerable(spec, references, recipe.file, tokenizer, whole=recipe.smoke)
    if not recipe.smoke:
        require_rows(spec, len(references), recipe.file)
    if spec.benchmarks:
        with Progress(log, "evaluation.benchmarks: loading their rows"):
            benchmarks = load_benchmarks(spec, recipe.file)
        if not recipe.smoke:
            require_benchmark_rows(spec, benchmarks, recipe.file)
    if spec.judge:
        from finetuning.judge.choices import human_choices
        from finetuning.judge.judge import require_budget

        require_budget(recipe, len(human_choices(recipe)), len(references))
        if judging := judging_artifacts(recipe, artifacts, log):
            judging.require_room()
            judging.verify()
    if "python-tests" in spec.metrics:
        require_confinement(recipe.file)
    if recipe.training.method == "grpo":
        from finetuning.reinforcement.checks import require_rewards

        require_rewards(recipe, chat_dataset.path, processes)
