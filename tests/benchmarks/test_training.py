"""What the records of the sides come to."""

import json

import numpy as np
import pytest

from benchmarks import training
from benchmarks.training_comparison import NAMES, compare, curve, differences, figures, operations_per_token, ratio
from benchmarks.training_rows import write

PREPARED = {
    "rows": 24,
    "tokens": 2_400,
    "supervised_tokens": 1_200,
    "block_parameters": 1_000_000,
    "head_parameters": 500_000,
}
RATES = [2.0e9, 3.0e9]


def record(speed: float, peak: float = 1_000.0, start: float = 10.0, loss: float = 2.0, **changes) -> dict:
    """Of three steps of 100 tokens, the last of which is as fast as that and the others are slow."""
    found = {
        "seconds_to_first_step": start,
        "peak_mb": peak,
        "rows": 24,
        "tokens": 2_400,
        "supervised_tokens": 1_200,
        "step_ends": [start, start + 50, start + 50 + 100 / speed],
        "step_cpu_seconds": [20.0, 100.0, 100.0 + 1.5 * 100 / speed],
        "step_tokens": [100, 100, 100],
        "step_positions": [120, 130, 150],
        "losses": [3.0, 2.5, 2.0],
        "versions": {"torch": "2.13.0"},
        "eval_loss": loss,
        **changes,
    }
    return found | figures(found)


def two_rounds() -> dict[str, list[dict]]:
    """The machine is half as fast in the second round."""
    return {
        "ours": [record(300, 900, 12, 2.01), record(150, 900, 24, 2.03)],
        "trl": [record(200, 1_000, loss=2.0), record(100, 1_000, loss=2.0)],
        "trl_grouped": [record(240), record(120)],
        "bare": [record(250, start=10), record(125, start=20)],
    }


def test_the_first_two_steps_count_for_nothing_but_the_padding():
    found = figures(record(250))
    assert found["tokens_per_second"] == pytest.approx(250)
    assert found["positions_per_second"] == pytest.approx(375)
    assert found["padding"] == pytest.approx(1 - 300 / 400)
    assert found["cores_used"] == pytest.approx(1.5)


def test_rounds_are_compared_pair_by_pair_so_that_a_slower_machine_changes_nothing(capsys):
    result = compare(two_rounds(), PREPARED, RATES, 2.5)
    assert result["ratio_to_trl"] == 1.5 and result["ratio_to_trl_grouped"] == 1.25
    assert result["memory_ratio"] == 0.9 and result["start_ratio"] == 1.2
    assert result["loss_difference"] == pytest.approx(0.02)


def test_a_side_that_did_not_run_has_no_ratio():
    assert ratio(two_rounds(), "tokens_per_second", "llamafactory") is None


def test_the_bound_is_what_a_matrix_product_needs_for_the_same_operations(capsys):
    assert operations_per_token(PREPARED) == 4 * (1_000_000 + 500_000 / 2)
    result = compare(two_rounds(), PREPARED, RATES, 2.5)
    assert result["tokens_per_second"] == 225
    assert result["ratio_to_bound"] == pytest.approx(225 * 5e6 / 2.5e9)


def test_the_result_is_json_and_the_tables_name_every_side(capsys):
    result = json.loads(json.dumps(compare(two_rounds(), PREPARED, RATES, 2.5)))
    printed = capsys.readouterr().out
    assert all(printed.count(f"| {NAMES[side]} ") == 2 for side in two_rounds())
    assert result["rounds"]["trl"][1]["losses"] == [3.0, 2.5, 2.0]
    assert result["versions"] == {side: {"torch": "2.13.0"} for side in ("ours", "trl", "bare")}


def test_a_curve_has_the_means_of_as_many_steps_as_there_are():
    own = [record(1, losses=[4.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]), record(1, losses=[2.0] + [0.0] * 7)]
    assert curve(own) == {"1–2": "2.000", "3–4": "0.500", "5–6": "0.375", "7–8": "0.250"}
    assert list(curve([record(1)])) == ["1–1", "2–2", "3–3"]


def test_rows_that_are_not_those_prepared_are_named():
    assert differences("trl", record(1), PREPARED) == ""
    other = record(1, tokens=2_390, supervised_tokens=1_224)
    assert differences("llamafactory", other, PREPARED) == (
        "LLaMA-Factory: -10 tokens.\n"
        "LLaMA-Factory: +24 supervised tokens: its ChatML learns the line break after the stop token too.\n"
    )


def test_steps_that_all_warm_up_are_a_mistake_in_the_command(capsys):
    with pytest.raises(SystemExit):
        training.parse(["--steps", "2"])
    assert "2 leaves none to measure" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_a_mistake_in_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit):
        training.parse(["--files", str(tmp_path / "none.jsonl")])
    assert "none.jsonl is not a file" in capsys.readouterr().err


def test_made_up_rows_are_as_long_and_as_different_in_length_as_those_of_gsm8k(tmp_path, smollm2_tokenizer):
    rows = [json.loads(line)["messages"] for line in write(tmp_path / "rows.jsonl", 1_000).read_text().splitlines()]
    smollm2_tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    )
    texts = [smollm2_tokenizer.apply_chat_template(messages, tokenize=False) for messages in rows]
    lengths = np.array([len(ids) for ids in smollm2_tokenizer(texts)["input_ids"]])
    assert 99 < lengths.mean() < 109 and 0.33 < lengths.std() / lengths.mean() < 0.43
    assert write(tmp_path / "again.jsonl", 1_000).read_bytes() == (tmp_path / "rows.jsonl").read_bytes()
    assert len({messages[0]["content"] for messages in rows}) == 1_000
