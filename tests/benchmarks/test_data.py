import json

import pytest

from benchmarks import data, llamafactory_environment

ROWS = 300


@pytest.mark.long("each side prepares the rows in a process of its own")
def test_ours_and_trl_prepare_the_same_tokens_and_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "WORK", tmp_path)
    data.main(["--rows", str(ROWS), "--rounds", "1", "--gigabytes", "0.0002", "--without-peer"])
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert result["rows"] == result["rows_like_trl"] == ROWS
    assert result["ratio_to_trl"] > 0 and result["ratio_to_peer"] is None
    assert result["rows_per_second"] == pytest.approx(ROWS / result["seconds"]["ours"][0], rel=0.05)
    assert result["large_rows"] > ROWS and result["peak_mb_over_interpreter"] > 0
    assert any(line.startswith("| trl ") for line in printed)
    assert list(tmp_path.iterdir()) == []


def test_a_side_that_fails_says_why(tmp_path):
    job = data.job_in(tmp_path / "x", tmp_path / "none.jsonl", "no-such-tokenizer", None)
    with pytest.raises(SystemExit, match=r"(?s)trl failed:.*OSError"):
        data.prepare("trl", data.sys.executable, job)


def test_a_file_that_is_not_there_is_a_mistake_in_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit):
        data.parse(["--files", str(tmp_path / "none.jsonl")])
    assert "none.jsonl is not a file" in capsys.readouterr().err


def test_the_peers_requirements_are_exact_versions():
    lines = llamafactory_environment.REQUIREMENTS.read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert packages and all(len(line.split("==")) == 2 for line in packages)
