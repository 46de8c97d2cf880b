"""The asset `merged_model`: base model and adapter as one, for recipes that ask for it."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.failures import explained
from assets.lineage import Line
from assets.materialized import materialized
from assets.partitions import BASE_MODELS, OWNERS
from finetuning.progress import Progress
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.store.artifact import Artifact

CHECK = "same_answers"


@dg.asset(
    partitions_def=BASE_MODELS,
    group_name="model",
    kinds={"pytorch", "huggingface"},
    tags={"gpu": "used"},
    owners=OWNERS,
    code_version="1",
    output_required=False,
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset="merged_model",
            blocking=True,
            partitions_def=BASE_MODELS,
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
) -> Iterator[dg.MaterializeResult[Artifact] | dg.AssetCheckResult]:
    """One model with the adapter added to its weights, for those who want to load it without a second file.

    It is made of the weights that training saw. Recipes without a `merge` section skip this, and what follows it.
    """
    with explained():
        recipe = load_for_run(context.partition_key)
        if recipe.merge is None:
            context.log.info(f"skipped: {recipe.file} has no merge section; write `merge: {{dtype: bfloat16}}` for one")
            # A blocking check without a result is warned about in each run.
            yield dg.AssetCheckResult(check_name=CHECK, passed=True, description="The recipe asks for no merged model.")
            return
        line = Line.behind(lora_adapter, artifacts, context.log.info)
        spec, base, tokenizer = recipe.merge, line.quantized_base_model, line.chat_dataset.path

        def write(folder):
            for artifact in (base, lora_adapter):
                artifact.verify()
            with Progress(context.log.info, "loading libraries") as progress:
                from finetuning.merge.gguf_file import require_exportable
                from finetuning.merge.merged_model import merge

                kwargs = gpu.model_kwargs(recipe.base_model)
                if spec.gguf:
                    require_exportable(base.path, lora_adapter.path, recipe.file)
                with gpu.exclusive("training", context.log.info):
                    return merge(
                        base.path,
                        lora_adapter.path,
                        tokenizer,
                        folder,
                        recipe.name,
                        spec,
                        kwargs,
                        progress,
                    )

        artifact = artifacts.plan(
            context,
            sections=sections(recipe, "merged_model"),
            resolved={},
            inputs=[line.chat_dataset, line.quantized_base_model, lora_adapter],
        ).obtain(write)
        keys = ("parameters", "size_mb", "dtype", "agreement", "kl", "positions")
        faults = spec.faults(artifact.summary)
        for fault in faults:
            context.log.error(fault)
        yield materialized(
            artifact,
            {
                **{key: artifact.summary[key] for key in keys},
                **{f"gguf_{key}": value for key, value in artifact.summary.get("gguf", {}).items()},
            },
            [same_answers(artifact.summary, faults)],
        )


def same_answers(summary: Mapping[str, Any], faults: list[str]) -> dg.AssetCheckResult:
    """Return the check of a merged model that was measured so, and does not keep to its recipe's limits in `faults`."""
    told = "; ".join(
        f"{measured.get('file', 'safetensors')}: {measured['agreement']:.2%} of {measured['positions']} tokens agree, "
        f"{measured['kl']:.5f} nats a token apart"
        for measured in (summary, *([summary["gguf"]] if "gguf" in summary else []))
    )
    measures = {key: summary[key] for key in ("agreement", "kl", "positions")}
    measures |= {f"gguf_{key}": summary["gguf"][key] for key in measures if "gguf" in summary}
    return dg.AssetCheckResult(
        check_name=CHECK, passed=not faults, description="; ".join(faults) or told, metadata=measures
    )
