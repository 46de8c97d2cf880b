"""The asset `lora_adapter`: what training adds to the base model."""

import json
from typing import Literal

import dagster as dg

from assets.before_training import require_use
from assets.failures import explained
from assets.lineage import MERGE, begun_training, is_merged, with_choice
from assets.materialized import materialized
from assets.merged_adapters import merged_adapters
from assets.partitions import GPU_POOL, OWNERS, RECIPES
from assets.starting_adapter import starting_adapter
from finetuning.chat.chat_summary import ChatSummary
from finetuning.checks.judgement import judge, require
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from finetuning.training.checkpoints import adopt
from finetuning.training.job import REWARDS, TrainingTask
from finetuning.training.summary import MergedAdapterSummary, TrainingSummary
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.hub import Hub
from resources.launcher import Launcher, OnThisMachine
from resources.loopback import ASSISTANT_PORT
from resources.store.artifact import Artifact
from resources.store.plan import checkpoints_of

MEMORY = ("peak_memory_mb", "predicted_memory_mb")

PASSES = ("per_device_train_batch_size", "gradient_accumulation_steps", "activation_checkpointing", "kept_layers")
HOW_IT_RAN = ("processes", *PASSES, "weights_written_out")


@dg.asset(
    partitions_def=RECIPES,
    group_name="model",
    kinds={"pytorch", "huggingface"},
    tags={"gpu": "used"},
    owners=OWNERS,
    pool=GPU_POOL,
    code_version="6",
)
@explained()
def lora_adapter(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    hub: Hub,
    gpu: Gpu,
    launcher: Launcher,
    chat_dataset: Artifact,
    quantized_base_model: Artifact,
    variants: Artifact | None,
) -> dg.MaterializeResult[Artifact]:
    """What the model learned: a small set of new numbers (a LoRA adapter) that works together with the base model.

    It is trained on the assistant's answers alone, in a process of its own that reports its progress here; with the
    settings that were chosen, where the recipe has some tried. Or it is the adapters of other recipes as one, where the
    recipe merges them (`lora.merge`).
    """
    recipe = with_choice(load_for_run(context.partition_key), variants)
    processes = launcher.count(recipe.resources.workers)
    # However this asset was selected: no faulty data reaches a GPU.
    chat = chat_dataset.read(ChatSummary)
    require(judge(chat.raw_checks | chat.checks, recipe))
    merge = merged_adapters(recipe, artifacts, chat_dataset, quantized_base_model, context.log.info)
    start = starting_adapter(recipe, artifacts, hub, quantized_base_model, context.log.info)
    trained = start.recipe if start else recipe
    begun = variants and begun_training(variants, artifacts, [chat_dataset, quantized_base_model], context.log.info)

    def write(folder):
        require_use(recipe, artifacts, chat_dataset, quantized_base_model, context.log.info, processes)
        if merge:
            return merge.write(chat_dataset, quantized_base_model, folder)
        inputs: dict[Literal["chat_dataset", "base_model"], Artifact] = {
            "chat_dataset": chat_dataset,
            "base_model": quantized_base_model,
        }
        if launcher.is_ray():
            from resources.ray_cluster.training import RayTraining, place_of, train_on_cluster  # Ray takes seconds

            place = place_of(artifacts, folder)
            training = RayTraining(trained, TrainingTask.of(trained), inputs, processes, gpu.require, place)
            train_on_cluster(context, training, folder, start.folder if start else None)
            known = {}
        else:
            if begun:
                adopt(begun, checkpoints_of(folder))
            known = OnThisMachine(context, gpu, launcher).train(trained, inputs, folder)
        return TrainingSummary.model_validate(json.loads((folder / "summary.json").read_text()) | known)

    artifact = artifacts.plan(
        context,
        sections=sections(recipe, "lora_adapter"),
        # Each process has rows of its own in every step.
        resolved={MERGE: merge.resolved}
        if merge
        else {"processes": processes, **({"lora_from": start.resolved} if start else {})},
        inputs=[chat_dataset, quantized_base_model, *([variants] if variants else [])],
    ).obtain(write)
    return materialized(artifact, metadata_of(artifact))


def metadata_of(artifact: Artifact) -> dict:
    """What the UI shows of a training, or of the adapters that were merged."""
    from finetuning.plots import as_markdown, loss_curve, reward_curve

    serve = f"`make serve RECIPE={artifact.partition}` serves it beside its base at <http://127.0.0.1:{ASSISTANT_PORT}>"
    served = {"assistant": dg.MetadataValue.md(serve)}
    if is_merged(artifact):
        from finetuning.evaluation.merged_parts import merged_from

        return {
            "trainable_parameters": artifact.read(MergedAdapterSummary).trainable_parameters,
            "merged": dg.MetadataValue.md("\n".join(f"- {part}" for part in merged_from(artifact.resolved[MERGE]))),
            **served,
        }
    summary, begun = artifact.read(TrainingSummary), artifact.resolved.get("lora_from")
    shown = ("trainable_parameters", "steps", "train_loss", "eval_loss", "tokens_per_second")
    shown += tuple(name for name in REWARDS if getattr(summary, name) is not None)
    if summary.strategy == "fsdp":
        shown += ("strategy", "weights_mb", "weights_held_mb")
    unit = "nats per supervised token"
    if summary.reward_accuracy is not None:
        unit = "preference"
    elif summary.reward_curve:
        unit = "of the reward"
    elif summary.reward_chosen is not None or summary.reward_rejected is not None:
        unit = "judged answer"
    picture = loss_curve(summary.curve, summary.eval_loss, summary.eval_curve, unit)
    rewards = reward_curve(summary.reward_curve) if summary.reward_curve else None
    return {
        **({} if summary.peak_reserved_mb is None else {"peak_reserved_mb": summary.peak_reserved_mb}),
        **{key: getattr(summary, key) for key in (*shown, *MEMORY, "attention", "device", "dtype", *HOW_IT_RAN)},
        **({"goes_on_from": f"{begun['source']} at {begun['revision']}"} if begun else {}),
        "attention_passed_over": dg.MetadataValue.json(summary.passed_over),
        "loss_curve": dg.MetadataValue.md(as_markdown(picture, "Loss curve")),
        **({"reward_curve": dg.MetadataValue.md(as_markdown(rewards, "Reward curve"))} if rewards else {}),
        **served,
    }
