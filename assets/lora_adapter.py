"""The asset `lora_adapter`: what training adds to the base model."""

import json
from typing import Literal

import dagster as dg

from assets.failures import explained
from assets.materialized import materialized
from assets.partitions import OWNERS, RECIPES
from finetuning.chat.chat_summary import ChatSummary
from finetuning.checks.judgement import judge, require
from finetuning.evaluation.benchmark_tasks import load_benchmarks
from finetuning.evaluation.python_tests import require_confinement
from finetuning.progress import Progress
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from finetuning.training.job import TrainingTask
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.launcher import Launcher, on_this_machine
from resources.ray_cluster.reach import steps_are_ray_jobs
from resources.store.artifact import Artifact

MEMORY = ("peak_memory_mb", "predicted_memory_mb")

HOW_IT_RAN = ("processes", "per_device_train_batch_size", "gradient_accumulation_steps", "activation_checkpointing")


@dg.asset(
    partitions_def=RECIPES,
    group_name="model",
    kinds={"pytorch", "huggingface"},
    tags={"gpu": "used"},
    owners=OWNERS,
    # One training at a time, as many partitions as there may be at work: the limit is in dagster.yaml. A cluster's own
    # is how many GPUs it has.
    pool=None if steps_are_ray_jobs() else "gpu",
    code_version="4",
)
@explained()
def lora_adapter(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    gpu: Gpu,
    launcher: Launcher,
    chat_dataset: Artifact,
    quantized_base_model: Artifact,
) -> dg.MaterializeResult[Artifact]:
    """What the model learned: a small set of new numbers (a LoRA adapter) that works together with the base model.

    It is trained on the assistant's answers alone, in a process of its own that reports its progress here.
    """
    recipe = load_for_run(context.partition_key)
    processes = launcher.count(recipe.resources.workers)
    # However this asset was selected: no faulty data reaches a GPU.
    chat = chat_dataset.read(ChatSummary)
    require(judge(chat.raw_checks | chat.checks, recipe))

    def write(folder):
        # Training is not paid for when what follows it could only fail.
        if recipe.merge and recipe.merge.gguf:
            from finetuning.merge.gguf_file import require_exportable

            require_exportable(quantized_base_model.path, chat_dataset.path / "tokenizer", recipe.file)
        if recipe.evaluation.benchmarks:
            with Progress(context.log.info, "evaluation.benchmarks: loading their rows"):
                load_benchmarks(recipe.evaluation, recipe.file)
        if "python-tests" in recipe.evaluation.metrics:
            require_confinement(recipe.file)
        inputs: dict[Literal["chat_dataset", "base_model"], Artifact] = {
            "chat_dataset": chat_dataset,
            "base_model": quantized_base_model,
        }
        if launcher.is_ray():
            from resources.ray_cluster.training import RayTraining, place_of, train_on_cluster  # Ray takes seconds

            place = place_of(artifacts, folder)
            training = RayTraining(recipe, TrainingTask.of(recipe), inputs, processes, gpu.require, place)
            train_on_cluster(context, training, folder)
            return json.loads((folder / "summary.json").read_text())
        known = on_this_machine(context, gpu, launcher, recipe, inputs, folder)
        return json.loads((folder / "summary.json").read_text()) | known

    artifact = artifacts.plan(
        context,
        sections=sections(recipe, "lora_adapter"),
        # Each process has rows of its own in every step.
        resolved={"processes": processes},
        inputs=[chat_dataset, quantized_base_model],
    ).obtain(write)
    return materialized(artifact, metadata_of(artifact))


def metadata_of(artifact: Artifact) -> dict:
    """What the UI shows of a training."""
    from finetuning.plots import as_markdown, loss_curve

    summary = artifact.summary
    shown = ("trainable_parameters", "steps", "train_loss", "eval_loss", "tokens_per_second")
    if "reward_accuracy" in summary:
        shown += ("reward_accuracy", "reward_margin")
    if summary.get("strategy") == "fsdp":
        shown += ("strategy", "weights_mb", "weights_held_mb")
    unit = "preference" if "reward_accuracy" in summary else "nats per supervised token"
    picture = loss_curve(summary["curve"], summary["eval_loss"], summary["eval_curve"], unit)
    return {
        **{key: summary[key] for key in (*shown, *MEMORY, "attention", "device", *HOW_IT_RAN)},
        "attention_passed_over": dg.MetadataValue.json(summary["passed_over"]),
        "loss_curve": dg.MetadataValue.md(as_markdown(picture, "Loss curve")),
    }
