"""The asset `variants`: which of several settings the adapter is trained with."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import dagster as dg

from assets.before_training import require_use
from assets.failures import explained
from assets.lineage import CHECKPOINTS, STATE
from assets.materialized import materialized
from assets.partitions import GPU_POOL, OWNERS, RECIPES
from assets.starting_adapter import starting_adapter
from finetuning.chat.chat_summary import ChatSummary
from finetuning.checks.judgement import judge, require
from finetuning.errors import FinetuningError
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from finetuning.recipe.trials import settled, variants_of
from finetuning.training.checkpoints import adopt, keep
from finetuning.variants.halving import race
from finetuning.variants.summary import Reached, Tried, VariantsSummary
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.hub import Hub
from resources.launcher import Launcher, OnThisMachine
from resources.store.artifact import Artifact
from resources.store.plan import checkpoints_of


@dg.asset(
    partitions_def=RECIPES,
    group_name="model",
    kinds={"pytorch"},
    tags={"gpu": "used"},
    owners=OWNERS,
    pool=GPU_POOL,
    code_version="1",
)
@explained()
def variants(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    hub: Hub,
    gpu: Gpu,
    launcher: Launcher,
    chat_dataset: Artifact,
    quantized_base_model: Artifact,
) -> dg.MaterializeResult[Artifact]:
    """Settings that are tried before the adapter is trained: each for a while, and the better ones for longer.

    They are compared on rows that are neither learned nor in the exam. The adapter is trained with those that did best,
    and goes on from where they are. Runs of recipes without a `variants` section skip this.
    """
    recipe = load_for_run(context.partition_key)
    spec = recipe.variants
    if spec is None:
        raise FinetuningError(f"{recipe.file} has no section variants, so that there is nothing to try.")
    if launcher.is_ray():
        raise FinetuningError(
            f"{recipe.file}: variants: they are trained on this machine, and trainings are to run on a Ray cluster "
            "(FINETUNING_LAUNCHER: ray). Write FINETUNING_LAUNCHER=local, or leave `variants` out."
        )
    chat = chat_dataset.read(ChatSummary)
    require(judge(chat.raw_checks | chat.checks, recipe))
    trials = Trials(context, artifacts, hub, OnThisMachine(context, gpu, launcher), recipe)
    trials.inputs |= {"chat_dataset": chat_dataset, "base_model": quantized_base_model}

    def write(folder: Path) -> VariantsSummary:
        require_use(recipe, artifacts, chat_dataset, quantized_base_model, context.log.info)
        found = race(len(trials.tried), spec, trials.train, trials.may_go_on)
        if found.winner is None:
            raise FinetuningError(
                f"{recipe.file}: variants: training diverged with all of them. Write lower values of "
                "training.learning_rate, or training.max_grad_norm: 0.3."
            )
        return VariantsSummary.of_race(trials.tried, found, spec)

    artifact = artifacts.plan(
        context,
        sections=sections(recipe, "variants"),
        resolved={"processes": launcher.count(recipe.resources.workers)},
        inputs=[chat_dataset, quantized_base_model],
    ).obtain(write)
    return materialized(artifact, metadata_of(artifact, chat.dev_rows))


@dataclass
class Trials:
    """The variants of a recipe, and how far each has come; each step on the way is an artifact, and found again."""

    context: dg.AssetExecutionContext
    artifacts: Artifacts
    hub: Hub
    here: OnThisMachine
    recipe: Recipe
    inputs: dict[Literal["chat_dataset", "base_model"], Artifact] = field(default_factory=dict)
    tried: list[Tried] = field(init=False)
    states: dict[int, Artifact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tried = [Tried(changes=dict(variant.changes), reached=[]) for variant in variants_of(self.recipe)]

    def may_go_on(self) -> bool:
        """Return whether there is time for another training."""
        minutes = self.recipe.variants and self.recipe.variants.minutes
        spent = sum(variant.reached[-1].seconds for variant in self.tried if variant.reached)
        return minutes is None or spent < 60 * minutes

    def train(self, number: int, share: float) -> float:
        """Bring a variant to that share of its training, from where it is; return its eval loss there."""
        variant, before = self.tried[number], self.states.get(number)
        log = self.context.log.info
        log(f"variant {number + 1} of {len(self.tried)} ({variant.name}), to {share:.0%} of its training")
        try:
            state = self._state(settled(self.recipe, variant.changes), share, before)
        except FinetuningError as error:
            raise type(error)(f"variants: {variant.name}: {error}") from error
        reached = state.read(Reached)
        told = "training diverged" if reached.loss is None else f"eval loss {reached.loss:.4f}"
        log(f"{variant.name}: {told} after step {reached.step} of {reached.steps}")
        self.states[number] = state
        self.tried[number] = variant.model_copy(
            update={"reached": [*variant.reached, reached], "state": state.fingerprint}
        )
        return float("inf") if reached.loss is None else reached.loss

    def _state(self, recipe: Recipe, share: float, before: Artifact | None) -> Artifact:
        chat_dataset, base_model = self.inputs["chat_dataset"], self.inputs["base_model"]
        start = starting_adapter(recipe, self.artifacts, self.hub, base_model, self.context.log.info)

        def write(folder: Path) -> Reached:
            checkpoints = checkpoints_of(folder)
            if before:
                adopt(before.path / CHECKPOINTS, checkpoints)
            self.here.train(start.recipe if start else recipe, self.inputs, folder, until=share)
            found = json.loads((folder / "summary.json").read_text())
            reached = Reached(**{key: found[key] for key in ("step", "steps", "loss", "seconds")})
            if reached.loss is not None:
                keep(checkpoints, folder / CHECKPOINTS)
            return reached

        return self.artifacts.plan(
            self.context,
            sections=sections(recipe, "lora_adapter"),
            resolved={
                "until": share,
                "processes": self.here.launcher.count(recipe.resources.workers),
                **({"lora_from": start.resolved} if start else {}),
            },
            inputs=[chat_dataset, base_model],
            beside=(STATE, chat_dataset.fingerprint),
        ).obtain(write)


def metadata_of(artifact: Artifact, dev_rows: int) -> dict:
    """What the UI shows of the variants: how each did, and which one was chosen."""
    from finetuning.plots import as_markdown, losses_by_share

    summary = artifact.read(VariantsSummary)
    curves = {variant.name: [reached.loss for reached in variant.reached] for variant in summary.tried}
    return {
        "variants": len(summary.tried),
        "chosen": summary.winner.name,
        "training_seconds": round(summary.seconds, 1),
        "what_was_done": summary.in_words(dev_rows),
        "losses": dg.MetadataValue.md(summary.table()),
        "curves": dg.MetadataValue.md(
            as_markdown(losses_by_share(summary.shares, curves, summary.winner.name), "Loss on the dev rows")
        ),
    }
