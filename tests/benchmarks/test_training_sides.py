"""The processes of the training benchmark, each in this one, on a tiny model."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, trainer

from benchmarks import (
    sides,
    training,
    training_bare,
    training_loss,
    training_ours,
    training_preparation,
    training_profile,
    training_rate,
    training_rows,
    training_trl,
)
from benchmarks.training_jobs import Judgement, Preparation, Product
from tests.tiny_models import save_tiny_model

pytestmark = pytest.mark.long("trainings of several sides")

STEPS, EVAL_ROWS = 3, 4
SIDES = {"ours": training_ours, "trl": training_trl, "bare": training_bare}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder in which all is prepared, and the record of it."""
    work = tmp_path_factory.mktemp("work")
    model = save_tiny_model("smollm2-135m", work / "model")
    wanted = 8 * STEPS + EVAL_ROWS
    rows = training_rows.write(work / "made-up.jsonl", 2 * wanted)
    spec = {"repo": str(model), "chat_template": "instruction"}
    job = Preparation(str(rows), 8 * STEPS, EVAL_ROWS, spec, True, str(work), str(work / "record.json"))
    training_preparation.main(job)
    return work, json.loads((work / "record.json").read_text())


def job_in(prepared, folder, *, precision="bf16", grouped=False):
    folder.mkdir(exist_ok=True)
    return training.job_of(folder, prepared[0], precision, grouped, seed=1)


def trained(prepared, folder, side, **settings) -> dict:
    """The record of a side, with the folder of its adapter."""
    job = job_in(prepared, folder, **settings)
    SIDES[side].main(job)
    return json.loads((folder / "record.json").read_text()) | {"adapter": job.adapter}


def losses(prepared, folder, adapters) -> dict:
    """Of the base model and of adapters."""
    job = Judgement(str(prepared[0] / "chat"), str(prepared[0] / "bf16"), adapters, str(folder / "losses.json"))
    training_loss.main(job)
    return json.loads((folder / "losses.json").read_text())


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
@pytest.mark.parametrize("side", SIDES)
def test_every_side_trains_on_every_token_once(prepared, tmp_path, side, precision):
    record, counted = trained(prepared, tmp_path, side, precision=precision), prepared[1]
    assert len(record["losses"]) == len(record["step_ends"]) == STEPS
    assert sum(record["step_tokens"]) == record["tokens"] == counted["tokens"]
    assert record["supervised_tokens"] == counted["supervised_tokens"] and record["rows"] == 8 * STEPS
    assert record["step_ends"] == sorted(record["step_ends"]) and record["peak_mb"] > 100
    assert sum(record["step_positions"]) > counted["tokens"]
    assert record["versions"]["torch"] and (tmp_path / "adapter/adapter_model.safetensors").is_file()


def test_what_watches_a_training_leaves_the_callbacks_of_trainers_as_they_were(prepared, tmp_path):
    before = list(trainer.DEFAULT_CALLBACKS)
    trained(prepared, tmp_path, "ours")
    assert before == trainer.DEFAULT_CALLBACKS
    with pytest.raises(OSError):
        training_profile.profiled(job_in(prepared, tmp_path / "failed")._replace(chat=str(tmp_path / "none")))
    assert before == trainer.DEFAULT_CALLBACKS


def test_a_profile_has_the_operations_of_the_training_by_kind(prepared, tmp_path):
    found = training_profile.profiled(job_in(prepared, tmp_path, precision="nf4"))
    assert list(found) == list(training_profile.KINDS) and all(seconds >= 0 for seconds in found.values())
    measured = ("matrix products of layers and head", "attention", "weights out of 4 bits", "loss", "optimizer")
    assert all(found[kind] > 0 for kind in measured)


def test_a_training_that_fails_leaves_no_record(prepared, tmp_path):
    job = job_in(prepared, tmp_path)._replace(chat=str(tmp_path / "none"))
    with pytest.raises(OSError):
        training_ours.main(job)
    assert not (tmp_path / "record.json").exists()


def test_ours_puts_rows_of_one_length_together_and_trl_does_when_told(prepared, tmp_path):
    rows = pq.read_table(prepared[0] / "chat/train.parquet")["input_ids"].to_pylist()
    longest = sorted(map(len, rows))[7::8]
    assert sorted(trained(prepared, tmp_path, "ours")["step_positions"]) == [8 * length for length in longest]
    told = [training_trl.settings(job_in(prepared, tmp_path, grouped=grouped)) for grouped in (False, True)]
    assert [settings.train_sampling_strategy for settings in told] == ["random", "group_by_length"]


def test_all_sides_learn_and_the_judge_sees_it(prepared, tmp_path):
    adapters = [trained(prepared, tmp_path / side, side)["adapter"] for side in SIDES]
    found = losses(prepared, tmp_path, adapters)
    assert all(loss < found["base"] - 0.001 for loss in found["adapters"])


def test_an_adapter_that_has_learned_nothing_has_the_loss_of_the_base_model(prepared, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(prepared[0] / "bf16", dtype="bfloat16")
    get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    found = losses(prepared, tmp_path, [trained(prepared, tmp_path, "bare")["adapter"], str(tmp_path)])
    assert found["adapters"][0] != found["adapters"][1] == found["base"]


def test_the_loss_is_the_models_own_mean_over_supervised_tokens(prepared):
    rows = pq.read_table(prepared[0] / "chat/eval.parquet", columns=["input_ids", "labels"]).to_pylist()
    model = AutoModelForCausalLM.from_pretrained(prepared[0] / "bf16", dtype="bfloat16").eval()
    batch = training_bare.padded(rows)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(**batch).loss.item()
    assert training_loss.loss_of(model, rows) == pytest.approx(expected, rel=1e-3)


def test_the_peer_gets_the_conversations_of_the_rows_that_are_trained_on(prepared):
    work, counted = prepared
    texts = [json.loads(line)["messages"] for line in (work / "rows.jsonl").read_text().splitlines()]
    rows = pq.read_table(work / "chat/train.parquet")["messages"].to_pylist()
    assert len(texts) == counted["rows"] == 8 * STEPS
    assert [[m["content"] for m in messages] for messages in texts] == [[m["content"] for m in row] for row in rows]
    assert {frozenset(message) for messages in texts for message in messages} == {frozenset({"role", "content"})}


def test_weights_of_the_blocks_and_of_the_head_are_counted_apart(prepared):
    work, counted = prepared
    model = AutoModelForCausalLM.from_pretrained(work / "bf16")
    linear = {name: m.weight.numel() for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert counted["head_parameters"] == linear.pop("lm_head")
    assert counted["block_parameters"] == sum(linear.values())


def test_too_few_rows_are_a_mistake_that_says_how_many_there_are(prepared, tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pq.read_table(prepared[0] / "chat/train.parquet"), path)
    with pytest.raises(SystemExit, match=r"train.parquet has 24 rows, and 25 are needed"):
        training_preparation.cut(path, 25)


def test_the_rate_of_a_matrix_product_is_that_of_its_operations(tmp_path):
    training_rate.main(Product(256, 3, str(tmp_path / "record.json")))
    assert 1e8 < json.loads((tmp_path / "record.json").read_text())["rate"] < 1e14


def test_a_process_that_fails_says_why(tmp_path):
    job = Product(-1, 1, str(tmp_path / "record.json"))
    with pytest.raises(SystemExit, match=r"(?s)the product failed:.*negative dimension"):
        sides.record_of("benchmarks.training_rate", training.sys.executable, job, "the product")
