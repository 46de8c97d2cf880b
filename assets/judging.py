"""The judge of a recipe, if it has one: behind an API, or the model of a recipe on this machine."""

from typing import TYPE_CHECKING

from finetuning.errors import FinetuningError
from finetuning.recipe.judge import JudgeSpec
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

BASE = "base"
WHERE = "evaluation.judge.name"


def judging_artifacts(recipe: Recipe, artifacts: Artifacts, log: Log) -> dict[str, Artifact]:
    """The artifacts of the model on this machine that judges, by asset, whole; none where no such model does.

    Raises:
        FinetuningError: there is no such recipe, it is the one that is examined, or its artifacts are not there.
    """
    spec = recipe.evaluation.judge
    if spec is None or spec.endpoint is not None:
        return {}
    name, is_base = named(spec)
    known = find()
    if name not in known:
        raise FinetuningError(
            f"{recipe.file}: {WHERE}: without an endpoint it is a recipe, or RECIPE/base, and there is no recipe "
            f"{name!r}; recipes are {', '.join(known)}{nearest(name, known)}."
        )
    if name == recipe.name and not is_base:
        raise FinetuningError(
            f"{recipe.file}: {WHERE}: {name} is the model that is examined, which would judge itself. Write "
            f"{name}/{BASE}, or name another recipe."
        )
    if is_base:
        found = {asset: artifacts.held(asset, name, log) for asset in ("quantized_base_model", "chat_dataset")}
    else:
        line = artifacts.lineage(artifacts.held("lora_adapter", name, log), log)
        found = {asset: line[asset] for asset in ("lora_adapter", "quantized_base_model", "chat_dataset")}
    for artifact in found.values():
        artifact.verify()
    return found


def named(spec: JudgeSpec) -> tuple[str, bool]:
    """The recipe that a judge without an endpoint names, and whether its base model judges."""
    name, _, side = spec.name.partition("/")
    return (name, True) if side == BASE else (spec.name, False)


def revision_of_model(judging: dict[str, Artifact]) -> str:
    """What tells one model that judges from another."""
    return ", ".join(f"{asset}/{artifact.fingerprint}" for asset, artifact in judging.items())


def judge_of(recipe: Recipe, artifacts: Artifacts, gpu: "Gpu", progress: "Progress") -> "Judge":
    """The recipe's judge, with all that it was asked by exams of this store.

    Raises:
        FinetuningError: the model is not there, or the key is none.
    """
    from finetuning.judge.judge import Judge, folder_name, judge_endpoint

    spec = recipe.evaluation.judge
    if spec is None:
        raise ValueError(f"{recipe.file} has no judge")
    if spec.endpoint is not None:
        asker = judge_endpoint(spec, progress.log)
        return Judge(spec, asker, artifacts.home("judgements", folder_name(asker)), progress)
    from finetuning.evaluation.judging_model import JudgingModel, JudgingWeights

    judging = judging_artifacts(recipe, artifacts, progress.log)
    its = load_for_run(named(spec)[0])
    kwargs = gpu.model_kwargs(its.base_model)
    adapter = judging.get("lora_adapter")
    weights = JudgingWeights(
        source=revision_of_model(judging),
        base_model=judging["quantized_base_model"].path,
        adapter=adapter and adapter.path,
        tokenizer=judging["chat_dataset"].path / "tokenizer",
        model_kwargs=kwargs,
        mixed_precision=its.training.bf16 or kwargs["dtype"] != "bfloat16",
    )
    model = JudgingModel(spec, weights, progress, lambda: gpu.exclusive(progress.log))
    return Judge(spec, model, artifacts.home("judgements", folder_name(model)), progress)
