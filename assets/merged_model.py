"""The asset `merged_model`: base model and adapter as one, for recipes that ask for it."""

import dagster as dg

from assets.failures import explained
from assets.lineage import Line
from assets.materialized import materialized
from assets.partitions import GPU_POOL, OWNERS, RECIPES
from finetuning.errors import FinetuningError
from finetuning.merge.agreement import MergedSummary, faults
from finetuning.progress import Progress
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.store.artifact import Artifact

CHECK = "same_answers"


@dg.asset(
    partitions_def=RECIPES,
    group_name="model",
    kinds={"pytorch", "huggingface"},
    tags={"gpu": "used"},
    owners=OWNERS,
    pool=GPU_POOL,
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset="merged_model",
            blocking=True,
            partitions_def=RECIPES,
            description="The merged model says what base and adapter say beside each other: on rows of the eval split "
            "it finds the same tokens likeliest, with nearly the same probabilities. So does its GGUF file, if any.",
        )
    ],
)
def merged_model(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    gpu: Gpu,
    lora_adapter: Artifact,
):
    """One model with the adapter added to its weights, for those who want to load it without a second file.

    It is made of the weights that training saw. Runs of recipes without a `merge` section skip this, and what follows.
    """
    with explained():
        recipe = load_for_run(context.partition_key)
        if recipe.merge is None:
            raise FinetuningError(f"{recipe.file} has no section merge; write `merge: {{dtype: bfloat16}}` for one.")
        line = Line.behind(lora_adapter, artifacts, context.log.info)
        spec, base, tokenizer = recipe.merge, line.quantized_base_model, line.chat_dataset.path

        def write(folder):
            for artifact in (line.chat_dataset, base, lora_adapter):
                artifact.verify()
            with Progress(context.log.info, "loading libraries") as progress:
                from finetuning.merge.gguf_file import require_exportable
                from finetuning.merge.merged_model import Parts, merge

                parts = Parts(base.path, lora_adapter.path, tokenizer, gpu.model_kwargs(recipe.base_model))
                if spec.gguf:
                    require_exportable(base.path, lora_adapter.path, recipe.file)
                with gpu.exclusive(context.log.info):
                    return merge(parts, folder, recipe.name, spec, progress)

        artifact = artifacts.plan(
            context,
            sections=sections(recipe, "merged_model"),
            resolved={},
            inputs=[line.chat_dataset, line.quantized_base_model, lora_adapter],
        ).obtain(write)
        summary = artifact.read(MergedSummary)
        missed = faults(spec, summary)
        for fault in missed:
            context.log.error(fault)
        return materialized(
            artifact,
            {
                **summary.model_dump(exclude={"version", "gguf"}),
                **{f"gguf_{key}": value for key, value in (dict(summary.gguf) if summary.gguf else {}).items()},
            },
            [same_answers(summary, missed)],
        )


def same_answers(summary: MergedSummary, missed: list[str]) -> dg.AssetCheckResult:
    """Return the check of a merged model that was measured so, and does not keep to its recipe's limits in `missed`."""
    models = {"safetensors": summary, **({summary.gguf.file: summary.gguf} if summary.gguf else {})}
    told = "; ".join(
        f"{name}: {measured.agreement:.2%} of {measured.positions} tokens agree, {measured.kl:.5f} nats a token apart"
        for name, measured in models.items()
    )
    measures = {
        f"{prefix}{key}": getattr(measured, key)
        for prefix, measured in zip(("", "gguf_"), models.values(), strict=False)
        for key in ("agreement", "kl", "positions")
    }
    return dg.AssetCheckResult(
        check_name=CHECK, passed=not missed, description="; ".join(missed) or told, metadata=measures
    )
