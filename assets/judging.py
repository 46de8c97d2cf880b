"""The judge of a recipe, if it has one: behind an API, or the model of a recipe on this machine."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetuning.errors import FinetuningError
from finetuning.recipe.judge import BASE
from finetuning.recipe.loading import find
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.store.artifact import Artifact, Log

if TYPE_CHECKING:
    from finetuning.judge.judge import Judge
    from finetuning.progress import Progress
    from resources.gpu import Gpu

WHERE = "evaluation.judge.name"
MIB = 1 << 20


@dataclass(frozen=True)
class JudgingArtifacts:
    """What a recipe left of the model that judges on this machine."""

    where: str
    """File and key that name it."""
    recipe: Recipe
    base_model: Artifact
    chat_dataset: Artifact
    """Of which its tokenizer is read."""
    adapter: Artifact | None

    @property
    def revision(self) -> str:
        """What tells one model that judges from another: the content of its weights, and how it is asked."""
        weights = [artifact for artifact in (self.adapter, self.base_model) if artifact]
        told = [f"{artifact.asset} {artifact.content}" for artifact in weights]
        return ", ".join([*told, f"chat template {self.chat_dataset.resolved['chat_template']}"])

    def verify(self) -> None:
        """Check that each file is what was written.

        Raises:
            FinetuningError: one is not.
        """
        for artifact in (self.adapter, self.base_model, self.chat_dataset):
            if artifact:
                artifact.verify()

    def require_room(self) -> None:
        """Check that this machine can have the weights in memory at all.

        Raises:
            FinetuningError: it cannot.
        """
        import psutil

        from finetuning.memory.free import gpu_memory

        room, takes = gpu_memory() or psutil.virtual_memory().total, self.base_model.bytes
        if takes > room:
            raise FinetuningError(
                f"{self.where}: the weights of {self.recipe.name} take {takes // MIB:,} MiB, and there are "
                f"{room // MIB:,} MiB in all, so that the exam could only fail. Name a smaller model."
            )


def judging_artifacts(recipe: Recipe, artifacts: Artifacts, log: Log) -> JudgingArtifacts | None:
    """The artifacts of the model on this machine that judges, as they are in force; None where no such model does.

    Raises:
        FinetuningError: there is no such recipe, it is the one that is examined or learned what it would be measured
            by, or its artifacts are not there.
    """
    spec = recipe.evaluation.judge
    if spec is None or spec.endpoint is not None:
        return None
    where = f"{recipe.file}: {WHERE}"
    (name, is_base), known = spec.on_this_machine(), find()
    if name not in known:
        raise FinetuningError(
            f"{where}: without an endpoint it is a recipe, or RECIPE/base, and there is no recipe {name!r}; recipes "
            f"are {', '.join(known)}{nearest(name, known)}. For a model behind an API write evaluation.judge.endpoint."
        )
    its = load_for_run(name)
    if is_base:
        made = ("quantized_base_model", "chat_dataset")
        base_model, chat_dataset = (artifacts.held(asset, name, log) for asset in made)
        return JudgingArtifacts(where, its, base_model, chat_dataset, None)
    if name == recipe.name:
        raise FinetuningError(
            f"{where}: {name} is the model that is examined, which would judge itself. Write {name}/{BASE}, or name "
            "another recipe."
        )
    _require_measure(where, name, recipe)
    line = artifacts.lineage(artifacts.held("lora_adapter", name, log), log)
    return JudgingArtifacts(where, its, line["quantized_base_model"], line["chat_dataset"], line["lora_adapter"])


def _require_measure(where: str, name: str, recipe: Recipe) -> None:
    """Check that what people preferred, by which the judge is measured, is nothing that it learned."""
    from finetuning.judge.choices import feedback_learned, feedback_of

    measure = feedback_of(recipe)
    for learned, said in feedback_learned(name):
        if said == measure:
            raise FinetuningError(
                f"{where}: {learned} learned from the feedback {measure!r}, by which {name} would be measured as a "
                "judge: that it agrees with what it was shown proves nothing. Name other feedback in "
                f"evaluation.judge.choices, or {name}/{BASE}."
            )


def judge_of(
    recipe: Recipe, judging: JudgingArtifacts | None, artifacts: Artifacts, gpu: "Gpu", progress: "Progress"
) -> "Judge":
    """The recipe's judge, with all that it was asked by exams of this store.

    Args:
        judging: the model on this machine that it is; None for one behind an API.

    Raises:
        FinetuningError: the model was changed since it was made, or the key is none.
    """
    from finetuning.judge.judge import Judge, folder_name, judge_endpoint

    spec = recipe.evaluation.judge
    if spec is None:
        raise ValueError(f"{recipe.file} has no judge")
    if judging is None:
        asker = judge_endpoint(spec, progress.log)
        return Judge(spec, asker, artifacts.home("judgements", folder_name(asker)), progress)
    from finetuning.evaluation.judging_model import JudgingModel, JudgingWeights

    judging.verify()
    kwargs = gpu.model_kwargs(judging.recipe.base_model)
    weights = JudgingWeights(
        source=judging.revision,
        base_model=judging.base_model.path,
        adapter=judging.adapter and judging.adapter.path,
        tokenizer=judging.chat_dataset.path / "tokenizer",
        model_kwargs=kwargs,
        mixed_precision=judging.recipe.training.bf16 or kwargs["dtype"] != "bfloat16",
    )
    model = JudgingModel(spec, weights, progress, lambda: gpu.exclusive(progress.log))
    return Judge(spec, model, artifacts.home("judgements", folder_name(model)), progress)
