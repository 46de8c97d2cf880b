"""The command `validate` says of each recipe that it is right, or what is wrong with it and with several together."""

import os
import subprocess
import sys

import pytest

from finetuning.recipe.__main__ import main
from finetuning.recipe.loading import ROOT, find
from tests.finetuning.recipe.short_recipe import SHORT, write


def test_validate_prints_a_line_for_each_right_recipe_and_the_mistakes_of_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    right, wrong = write(tmp_path, SHORT, "right"), write(tmp_path, SHORT + "lora: {r: 0}\n", "wrong")
    assert main(["validate", str(right), "phi-2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "right.yaml: right (A model that answers)",
        "phi-2: right (Phi-2 solves grade-school maths step by step)",
    ]
    assert main(["validate", "wrong.yaml", str(right), "nowhere"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "right.yaml: right (A model that answers)"
    assert lines[1] == "wrong.yaml:5: lora.r: 0 is not a positive number"
    assert lines[2].startswith("nowhere: no such recipe in ")
    assert wrong.exists()


def test_of_two_recipes_of_one_name_the_one_that_lies_at_the_path_is_named(tmp_path, monkeypatch, capsys):
    text = SHORT + "evaluation: {benchmarks: [no_such_task]}\n"
    mine, theirs = write(tmp_path / "mine", SHORT, "phi-2"), write(tmp_path / "theirs", text, "phi-2")
    monkeypatch.setenv("FINETUNING_RECIPES", str(theirs.parent))
    monkeypatch.chdir(tmp_path)
    assert main(["validate", "mine/phi-2.yaml"]) == 0
    assert capsys.readouterr().out == "mine/phi-2.yaml: right (A model that answers)\n"
    assert main(["validate", str(theirs), str(mine)]) == 1
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "mine/phi-2.yaml: right (A model that answers)"
    assert wrong.startswith("theirs/phi-2.yaml: evaluation.benchmarks: no task of ")


def test_two_files_of_one_name_are_told_apart_where_both_would_publish_to_one_repo(tmp_path, monkeypatch, capsys):
    mine, theirs = write(tmp_path / "mine", SHORT), write(tmp_path / "theirs", SHORT)
    monkeypatch.chdir(tmp_path)
    assert main(["validate", str(mine), "theirs/short.yaml"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("mine/short.yaml, theirs/short.yaml: hub.repo: 'some-adapter' is the repo of each")
    assert main(["validate", str(theirs), "theirs/short.yaml"]) == 0, "one recipe, named twice"


def test_validate_without_names_checks_every_recipe_and_every_folder(tmp_path, monkeypatch, capsys):
    assert main(["validate"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(find())
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path / "gone"))
    assert main(["validate"]) == 1
    assert f"{tmp_path}/gone: no such folder; see FINETUNING_RECIPES" in capsys.readouterr().out


def test_validate_finds_recipes_that_would_publish_over_each_other(tmp_path, monkeypatch, capsys):
    merged = ROOT / "recipes" / "phi-2.yaml"
    renamed = merged.read_text().replace("repo: phi-2-basic-maths", "repo: Phi-2-Basic-Maths")
    (tmp_path / "copy.yaml").write_text(renamed)
    (tmp_path / "other.yaml").write_text(merged.read_text().replace("repo: phi-2-basic-maths", "repo: other"))
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path))
    assert main(["validate"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("copy, phi-2: hub.repo: 'Phi-2-Basic-Maths' is the repo of each")


def test_validate_finds_a_chat_template_that_is_no_file(tmp_path, monkeypatch, capsys):
    text = (ROOT / "recipes" / "phi-2.yaml").read_text()
    mine = tmp_path / "mine.jinja"
    (tmp_path / "mine.yaml").write_text(text.replace("chat_template: instruction", f"chat_template: {mine}"))
    assert main(["validate", str(tmp_path / "mine.yaml")]) == 1
    assert f"base_model.chat_template: '{mine}' is not a file (looked in " in capsys.readouterr().out
    mine.write_text("{{ messages }}")
    assert main(["validate", str(tmp_path / "mine.yaml")]) == 0


def test_validate_finds_files_of_this_machine_that_are_missing(tmp_path, capsys):
    text = SHORT.replace(
        "hub: some/data, format: messages", "files: [{folder}/*.jsonl, 's3://b/*.csv', {folder}/b.csv]"
    )
    path = write(tmp_path, text.replace("{folder}", str(tmp_path)), "mine")
    assert main(["validate", str(path)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(";")[0] for line in told] == [
        f"{path}: dataset.sources[0].files: no file matches '{tmp_path}/{name}'" for name in ("*.jsonl", "b.csv")
    ]
    assert told[0].endswith(f"the folder {tmp_path} holds mine.yaml.")
    for name in ("a.jsonl", "b.csv"):
        (tmp_path / name).write_text("x")
    assert main(["validate", str(path)]) == 0


def test_an_unknown_command_is_a_usage_error():
    with pytest.raises(SystemExit) as raised:
        main(["chekc"])
    assert raised.value.code == 2


def test_the_module_imports_no_heavy_library_and_runs_as_a_command():
    heavy = "{'torch', 'transformers', 'trl', 'peft', 'datasets', 'bitsandbytes', 'huggingface_hub', 'dagster'}"
    code = f"import sys, finetuning.recipe.__main__ as r; r.main(['validate']); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "finetuning.recipe", "validate", "falcon-7b"]
    environment = {key: value for key, value in os.environ.items() if key != "FINETUNING_RECIPES"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "falcon-7b: right (Falcon-7B solves linear equations step by step)\n")


def test_a_repo_with_the_local_hubs_namespace_is_the_one_without(tmp_path, monkeypatch, capsys):
    first, second = write(tmp_path, SHORT), tmp_path / "other.yaml"
    second.write_text(first.read_text().replace("some-adapter", "LOCAL/Some-Adapter"))
    assert main(["validate", str(first), str(second)]) == 1
    assert "is the repo of each" in capsys.readouterr().out
    monkeypatch.setenv("FINETUNING_HUB", "https://hub.example")
    assert main(["validate", str(first), str(second)]) == 0
