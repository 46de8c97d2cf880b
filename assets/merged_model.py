"""The asset `merged_model`: base model and adapter as one, for recipes that ask for it."""

from collections.abc import Iterator

import dagster as dg

from assets.failures import explained
from assets.partitions import BASE_MODELS, OWNERS
from finetuning.progress import Progress
from finetuning.recipe.merge import MergeSpec
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.store.artifact import Artifact


@dg.asset(
    partitions_def=BASE_MODELS,
    group_name="model",
    kinds={"pytorch", "huggingface"},
    tags={"gpu": "used"},
    owners=OWNERS,
    code_version="1",
    output_required=False,
)
def merged_model(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    gpu: Gpu,
    chat_dataset: Artifact,
    quantized_base_model: Artifact,
    lora_adapter: Artifact,
) -> Iterator[dg.MaterializeResult[Artifact]]:
    """One model with the adapter added to its weights, for those who want to load it without a second file.

    It is made of the weights that training saw. Recipes without a `merge` section skip this, and what follows it.
    """
    with explained():
        recipe = load_for_run(context.partition_key)
        if recipe.merge is None:
            context.log.info(f"skipped: {recipe.file} has no merge section; write `merge: {{dtype: bfloat16}}` for one")
            return
        lora_adapter.require_inputs(chat_dataset, quantized_base_model)
        spec, folders = recipe.merge, (quantized_base_model.path, lora_adapter.path, chat_dataset.path)

        def write(folder):
            for artifact in (quantized_base_model, lora_adapter):
                artifact.verify()
            with Progress(context.log.info, "loading libraries") as progress:
                from finetuning.merge.gguf_file import require_exportable
                from finetuning.merge.merged_model import merge

                if spec.gguf:
                    require_exportable(*folders[:2], recipe.file)
                with gpu.exclusive("training", context.log.info):
                    return merge(*folders, folder, recipe.name, spec, gpu.model_kwargs(recipe.base_model), progress)

        artifact = artifacts.plan(
            context,
            sections=sections(recipe, "merged_model"),
            resolved={},
            inputs=[chat_dataset, quantized_base_model, lora_adapter],
        ).obtain(write)
        keys = ("parameters", "size_mb", "dtype", "agreement", "kl", "positions")
        yield dg.MaterializeResult(
            value=artifact,
            data_version=dg.DataVersion(artifact.fingerprint),
            metadata={
                **{key: artifact.summary[key] for key in keys},
                **{f"gguf_{key}": value for key, value in artifact.summary.get("gguf", {}).items()},
                **artifact.metadata(),
            },
        )


# A step of its own, so that it is skipped together with the asset.
@dg.asset_check(
    asset=merged_model,
    blocking=True,
    partitions_def=BASE_MODELS,
    description="The merged model says what base and adapter say beside each other: on rows of the eval split it finds "
    "the same tokens likeliest, with nearly the same probabilities. So does its GGUF file, where there is one.",
)
def same_answers(context: dg.AssetCheckExecutionContext, merged_model: Artifact) -> dg.AssetCheckResult:
    """Whether the merged model keeps to the limits of its recipe."""
    with explained():
        spec, summary = load_for_run(context.partition_key).merge or MergeSpec(), merged_model.summary
    faults = spec.faults(summary)
    for fault in faults:
        context.log.error(fault)
    text = "; ".join(
        f"{measured.get('file', 'safetensors')}: {measured['agreement']:.2%} of {measured['positions']} tokens agree, "
        f"{measured['kl']:.5f} nats a token apart"
        for measured in (summary, *([summary["gguf"]] if "gguf" in summary else []))
    )
    measures = {key: summary[key] for key in ("agreement", "kl", "positions")}
    measures |= {f"gguf_{key}": summary["gguf"][key] for key in measures if "gguf" in summary}
    return dg.AssetCheckResult(passed=not faults, description="; ".join(faults) or text, metadata=measures)
