"""The asset `quantized_base_model`: the frozen weights that adapters are trained on."""

import dagster as dg

from assets.external_assets import BASE_MODEL_SOURCE, RECIPE
from assets.failures import RETRIES, explained
from assets.materialized import materialized
from assets.partitions import OWNERS, RECIPES
from finetuning.base_model.quantization_summary import QuantizationSummary
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.hub import Hub
from resources.store.artifact import Artifact


@dg.asset(
    deps=[RECIPE, BASE_MODEL_SOURCE],
    partitions_def=RECIPES,
    group_name="model",
    kinds={"pytorch", "huggingface"},
    tags={"gpu": "used", "hub": "read"},
    owners=OWNERS,
    retry_policy=RETRIES,
    code_version="1",
)
@explained()
def quantized_base_model(
    context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub, gpu: Gpu
) -> dg.MaterializeResult[Artifact]:
    """The model to start from, with each of its numbers stored in fewer bits, so that it needs less memory.

    It stays as it is from here on: training adds a small adapter beside it. How much precision the smaller numbers cost
    is measured layer by layer.
    """
    import pandas as pd

    from finetuning.base_model.source import fetch, resolve

    recipe = load_for_run(context.partition_key)
    spec = recipe.base_model
    if gpu.require != "any":
        gpu.machine()  # a GPU that is required and missing is said, whether the model is there already or not
    loftq = recipe.lora.r if recipe.lora.init_lora_weights == "loftq" else None
    with hub.connect_source() as api:
        resolved = resolve(spec, api, recipe.file)

        def write(folder):
            from finetuning.base_model.quantized_base_model import quantize

            source = fetch(spec, resolved["revision"], api, recipe.file)
            with gpu.exclusive(context.log.info):
                return quantize(spec, source, folder, gpu.quantization_kwargs(spec), recipe.file, loftq)

        artifact = artifacts.plan(
            context,
            sections=sections(recipe, "quantized_base_model"),
            resolved={"base_model": resolved},
            shared=True,
        ).obtain(write)
    summary = artifact.read(QuantizationSummary)
    notes = [f"- {note}" for note in summary.notes]
    for note in summary.notes:
        context.log.info(f"base_model: {note}")
    unmeasured = "Quantized already, so not measured." if summary.as_it_came else "Not quantized: full precision."
    layers = pd.DataFrame(summary.layers, columns=["layer", "shape", "error"])
    return materialized(
        artifact,
        {
            "source": f"{resolved['source']} at {resolved['revision']}",
            "parameters": summary.parameters,
            "size_mb": summary.size_mb,
            "full_size_mb": summary.full_size_mb,
            **({} if summary.as_it_came else {"quantization_error": summary.quantization_error}),
            "layers": dg.MetadataValue.md(layers.to_markdown(index=False) if len(layers) else unmeasured),
            **({"notes": dg.MetadataValue.md("\n".join(notes))} if notes else {}),
        },
    )
