"""Training: trl's loss, master weights in float32, and a loss that is no number ends it."""

import math
from itertools import chain

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerState, TrainingArguments
from transformers.models.llama.modeling_llama import LlamaAttention
from trl import SFTConfig, SFTTrainer

from finetuning.base_model.loading import load_model
from finetuning.errors import FinetuningError
from finetuning.hub.event_files import read_events
from finetuning.lora.config import keep_master_weights, lora_config
from finetuning.lora.embeddings import adapt_head
from finetuning.lora.targets import require_targets
from finetuning.progress import Progress
from finetuning.recipe.lora import LoraSpec
from finetuning.training.callback import TrainingProgress
from finetuning.training.interruption import Interruption, Watchdog
from finetuning.training.lora_adapter import train
from finetuning.training.rows import train_rows
from finetuning.training.trainer import AdapterTrainer
from tests.finetuning.training.adapter_jobs import ROWS, data, job_of
from tests.tiny_models import save_tiny_model


def trained(trainer_class, folder, out, new_tokens=(), **settings):
    """The losses and the trained weights of three steps over the same rows in the same order."""
    model = load_model(folder)
    spec = LoraSpec(r=4, lora_dropout=0.0)
    own = {"rows_per_step": 3, "order": "sequential", "own_head": True} if trainer_class is AdapterTrainer else {}
    trainer = trainer_class(
        model=model,
        args=SFTConfig(
            output_dir=str(out),
            max_steps=3,
            learning_rate=1e-2,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=3,
            logging_steps=1,
            seed=1,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora_config(spec, model, list(new_tokens), "tiny.yaml"),
        **own,
    )
    adapt_head(trainer.model, list(new_tokens))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_the_own_head_gives_trls_own_losses_and_weights(tiny, tmp_path):
    ours, theirs = (trained(cls, tiny, tmp_path) for cls in (AdapterTrainer, SFTTrainer))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
    assert ours[0][0] != pytest.approx(ours[0][2], rel=1e-3), "nothing was learned, so equal losses prove nothing"
    for name, weight in theirs[1].items():
        torch.testing.assert_close(ours[1][name], weight, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("family", ["smollm2-135m", "mistral-7b-fennec"])
def test_trls_own_head_trains_the_rows_of_new_tokens_as_well(tmp_path, family):
    folder = save_tiny_model(family, tmp_path / "model")
    ours, theirs = (trained(cls, folder, tmp_path, new_tokens=[22, 50]) for cls in (AdapterTrainer, SFTTrainer))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
    rows = [name for name in theirs[1] if "trainable_tokens_delta" in name]
    start = load_model(folder).get_input_embeddings().weight[[22, 50]]
    assert len(rows) == (1 if family == "smollm2-135m" else 2)
    assert (theirs[1][rows[0]] - start).abs().max() > 1e-2
    for name in rows:
        torch.testing.assert_close(ours[1][name], theirs[1][name], rtol=1e-2, atol=1e-4)


def test_packing_keeps_every_token_and_label_and_trains(tmp_path, tiny):
    for split in ("train", "eval"):
        Dataset.from_list(ROWS).to_parquet(str(tmp_path / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "tokenizer")
    job = job_of(tmp_path, tiny, training={"packing": True, "per_device_train_batch_size": 1})
    packed = train_rows(job)
    assert len(packed) < len(ROWS)
    for column in ("input_ids", "labels"):
        before, after = (sorted(chain.from_iterable(row[column] for row in rows)) for rows in (ROWS, packed))
        assert after == before
    assert train(job, Progress(lambda line: None, ""))["steps"] == 2


def test_packed_rows_that_a_kernel_keeps_apart_have_the_loss_that_they_have_alone(tmp_path, monkeypatch):
    folder = save_tiny_model("gemma-2b", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Its padding is its stop token, and each row has one: all the same these are tokens of rows.
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{**row, "input_ids": [*row["input_ids"][:-1], tokenizer.eos_token_id]} for row in ROWS]
    for split in ("train", "eval"):
        Dataset.from_list(rows).to_parquet(str(tmp_path / f"{split}.parquet"))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    found = []
    for kernel, packing in (("varlen", True), ("sdpa", False)):
        kwargs = {"dtype": "float32", "device_map": {"": "cpu"}, "trust_remote_code": False}
        job = job_of(
            tmp_path,
            folder,
            {"lora_dropout": 0.0},
            {
                "max_steps": 1,
                "packing": packing,
                "activation_checkpointing": packing,
                "per_device_train_batch_size": len(ROWS),
                "bf16": False,
            },
            model_kwargs=kwargs | {"attn_implementation": kernel},
            output=tmp_path / kernel,
        )
        found.append(train(job, Progress(lambda line: None, "")))
    packed, padded = found
    assert packed["train_loss"] == pytest.approx(padded["train_loss"], rel=1e-5)
    assert packed["eval_loss"] == pytest.approx(padded["eval_loss"], rel=1e-4)
    assert packed["attention"] == "varlen" and packed["peak_reserved_mb"] is None
    assert packed["tokens"] == padded["tokens"] == sum(len(row["input_ids"]) for row in rows)


def test_a_target_that_the_model_does_not_have_is_named_beside_those_that_it_has(tmp_path, tiny):
    job = job_of(tmp_path, tiny, lora={"target_modules": ["q_prj"]})
    model = AutoModelForCausalLM.from_pretrained(tiny)
    with pytest.raises(FinetuningError, match=r"'q_prj' is no linear layer of LlamaForCausalLM.*nearest is q_proj"):
        require_targets(model, job.lora, job.where)


def test_a_warm_up_that_is_longer_than_the_training_is_told_before_the_first_step(tmp_path, tiny):
    data(tmp_path, tiny)
    job = job_of(tmp_path, tiny, training={"max_steps": -1, "warmup_steps": 100, "per_device_train_batch_size": 1})
    with pytest.raises(FinetuningError, match=r"training\.warmup_steps: 100, and the training has 3 steps"):
        train(job, Progress(lambda line: None, ""))
    train(job_of(tmp_path, tiny, training={"max_steps": 2, "warmup_steps": 2}), Progress(lambda line: None, ""))


def test_what_is_trained_is_stored_in_float32():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).to(torch.bfloat16)
    model[0].requires_grad_(False)
    keep_master_weights(model)
    assert (model[0].weight.dtype, model[1].weight.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training(tmp_path, loss):
    callback = TrainingProgress(
        Progress(lambda line: None, ""), job_of(tmp_path, tmp_path), Interruption(), Watchdog(tmp_path / "hang", 60)
    )
    state = TrainerState(global_step=7, max_steps=10)
    with pytest.raises(FinetuningError, match=r"tiny\.yaml: training diverged: the loss at step 7 is (nan|inf)"):
        callback.on_log(TrainingArguments(str(tmp_path)), state, None, logs={"loss": loss})  # type: ignore[arg-type]


KINDS = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "PiSSA": {"init_lora_weights": "pissa"},
    "OLoRA": {"init_lora_weights": "olora"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "a head that is trained whole": {"modules_to_save": ["lm_head"]},
    "all biases": {"bias": "all"},
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_adapter_fits_the_base_model_as_it_was(tmp_path, name):
    folder = save_tiny_model("mistral-7b-fennec", tmp_path / "model")
    data(tmp_path, folder)
    settings = {"max_steps": 4, "learning_rate": 1e-2, "per_device_train_batch_size": 3}
    job = job_of(tmp_path, folder, lora={"r": 4, "lora_dropout": 0.0, **KINDS[name]}, training=settings)
    summary = train(job, Progress(lambda line: None, ""))
    base = load_model(folder)
    before = mean_loss(base)
    adapted = PeftModel.from_pretrained(base, str(job.output))
    assert mean_loss(adapted) == pytest.approx(summary["eval_loss"], rel=1e-5)
    assert summary["eval_loss"] < before - 1e-3, "nothing was learned, so equal losses prove nothing"


def mean_loss(model) -> float:
    """The mean loss over the supervised tokens of ROWS, one row at a time, by the model's own logits."""
    total, count = 0.0, 0
    for row in ROWS:
        labels = torch.tensor(row["labels"][1:])
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        total += cross_entropy(logits, labels, ignore_index=-100, reduction="sum").item()
        count += int((labels != -100).sum())
    return total / count


@pytest.mark.parametrize("family", ["smollm2-135m", "falcon-7b", "phi-2", "gemma-2b", "gemma-3"])
@pytest.mark.parametrize("quantization", [None, {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}])
def test_activations_computed_twice_or_kept_give_the_same_adapter_bit_for_bit(tmp_path, family, quantization):
    folder = save_tiny_model(family, tmp_path / "model")
    if quantization:
        settings = {"quantization_config": BitsAndBytesConfig(**quantization), "device_map": {"": "cpu"}}
        load_model(folder, dtype=torch.bfloat16, **settings).save_pretrained(folder)
    data(tmp_path, folder)
    adapters = set()
    for checkpointing, kept_layers in ((False, 0), (True, 0), (None, 0), (True, 1)):
        job = job_of(
            tmp_path,
            folder,
            lora={"r": 4, "lora_dropout": 0.2},
            training={
                "max_steps": 3,
                "learning_rate": 1e-2,
                "per_device_train_batch_size": 2,
                "neftune_noise_alpha": 5.0,
                "activation_checkpointing": checkpointing,
            },
            model_kwargs={"dtype": "bfloat16", "device_map": {"": "cpu"}, "trust_remote_code": False},
            output=tmp_path / f"adapter-{checkpointing}-{kept_layers}",
            kept_layers=kept_layers,
        )
        summary = train(job, Progress(lambda line: None, ""))
        assert summary["activation_checkpointing"] is (checkpointing is not False)
        assert summary["kept_layers"] == kept_layers
        adapters.add((job.output / "adapter_model.safetensors").read_bytes())
    assert len(adapters) == 1


@pytest.mark.parametrize("family", ["smollm2-135m", "phi-2"])
def test_weights_that_are_written_out_give_the_same_adapter_bit_for_bit(tmp_path, family):
    folder = save_tiny_model(family, tmp_path / "model")
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype="bfloat16")
    model = load_model(folder, dtype=torch.bfloat16, quantization_config=settings, device_map={"": "cpu"})
    model.save_pretrained(folder)
    data(tmp_path, folder)
    adapters = set()
    for writes_out in (False, True):
        job = job_of(
            tmp_path,
            folder,
            training={"max_steps": 3, "learning_rate": 1e-2, "eval_steps": 2},
            model_kwargs={"dtype": "bfloat16", "device_map": {"": "cpu"}, "trust_remote_code": False},
            output=tmp_path / f"adapter-{writes_out}",
            writes_weights_out=writes_out,
        )
        summary = train(job, Progress(lambda line: None, ""))
        assert summary["weights_written_out"] is writes_out
        adapters.add((job.output / "adapter_model.safetensors").read_bytes())
    assert len(adapters) == 1


@pytest.mark.parametrize(("kept_layers", "calls"), [(0, [4, 4]), (1, [4, 2]), (2, [2, 2])])
def test_the_last_layers_keep_their_activations_and_the_others_compute_them_twice(
    tmp_path, tiny, kept_layers, calls, monkeypatch
):
    data(tmp_path, tiny)
    settings = {"max_steps": 2, "activation_checkpointing": True, "per_device_train_batch_size": 3}
    found, forward = [], LlamaAttention.forward

    def counted(layer, *given, **settings):
        found.append(layer.layer_idx)
        return forward(layer, *given, **settings)

    monkeypatch.setattr(LlamaAttention, "forward", counted)
    train(job_of(tmp_path, tiny, training=settings, kept_layers=kept_layers), Progress(lambda line: None, ""))
    # The evaluation after training reads the three rows once.
    assert [found.count(layer) - 1 for layer in (0, 1)] == calls


def test_loraplus_teaches_the_second_matrix_faster(tmp_path, tiny):
    data(tmp_path, tiny)
    norms = {}
    for ratio in (None, 16.0):
        job = job_of(
            tmp_path,
            tiny,
            training={"max_steps": 1, "learning_rate": 1e-4, "loraplus_lr_ratio": ratio},
            output=tmp_path / f"adapter-{ratio}",
        )
        train(job, Progress(lambda line: None, ""))
        weights = load_file(job.output / "adapter_model.safetensors")
        norms[ratio] = sum(weight.abs().sum().item() for name, weight in weights.items() if "lora_B" in name)
    assert norms[16.0] == pytest.approx(16 * norms[None], rel=1e-3)


def test_training_ends_when_the_eval_loss_no_longer_falls_and_keeps_the_best_weights(tmp_path, tiny):
    data(tmp_path, tiny)
    Dataset.from_list([{"input_ids": list(range(90, 60, -1)), "labels": list(range(90, 60, -1))}]).to_parquet(
        str(tmp_path / "eval.parquet")
    )
    settings = {"max_steps": 60, "learning_rate": 3e-2, "eval_steps": 2, "early_stopping_patience": 3}
    summary = train(job_of(tmp_path, tiny, training=settings), Progress(lambda line: None, ""))
    losses = [point["loss"] for point in summary["eval_curve"]]
    assert summary["steps"] < 60 and summary["eval_loss"] == pytest.approx(min(losses), rel=1e-6)
    assert losses.index(min(losses)) == len(losses) - 5, "three evaluations after the best one, and the last of all"


def test_the_curves_are_in_the_artifact_for_tensorboard(tmp_path, tiny):
    data(tmp_path, tiny)
    job = job_of(tmp_path, tiny)
    train(job, Progress(lambda line: None, ""))
    events = [event for path in (job.output / "tensorboard").rglob("events.*") for event in read_events(path)]
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"train/loss", "train/learning_rate", "eval/loss"} <= tags, "that of the evaluation after training too"


def test_a_tracker_that_is_not_installed_is_named(tmp_path, tiny):
    data(tmp_path, tiny)
    with pytest.raises(FinetuningError, match=r"report_to: swanlab is not installed here; there are .*tensorboard"):
        train(job_of(tmp_path, tiny, training={"report_to": ["swanlab"]}), Progress(lambda line: None, ""))
