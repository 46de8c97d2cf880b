"""Whatever is wrong with a recipe, what is said of it holds no password and no key, and no half of one."""

import pytest

from finetuning.recipe.__main__ import main
from tests.finetuning.recipe.short_recipe import with_sections, write
from tests.finetuning.test_secrets import PLANTED

KEY = PLANTED["AWS Access Key"]
SECRETS = {
    "an address": ("https://bob:hunter2secretpw@host/x.jsonl", "hunter2"),
    "a bucket's address": ("s3://bob:hunter2secretpw@host/x.jsonl", "hunter2"),
    "a password with a slash": ("https://bob:hunter2/secretpw@host/x.jsonl", "secretpw"),
    "a password with a question mark": ("https://bob:hunter2?secretpw@host/x.jsonl", "hunter2"),
    "a password with a quote": ("https://bob:hunter2''secretpw@host/x.jsonl", "hunter2"),
    "a long password": (f"https://bob:{'hunter2' * 9}@host/x.jsonl", "hunter2"),
    "a signature": ("https://host/x.jsonl?signature=hunter2", "hunter2"),
    "a key": (KEY, KEY[:10]),
    "a key where a value is cut": ("x" * 36 + " " + KEY, KEY[:10]),
}
HUB = "hub: {repo: a, license: other, license_name: ours, license_link: "
PLACES = {
    "files that are text": "dataset: {sources: [{files: '@'}]}",
    "files that are a section": "dataset: {sources: [{files: {'@': '@'}}]}",
    "documents that are text": "knowledge: {documents: [{files: '@'}]}",
    "a repo": "hub: {repo: '@', license: mit}",
    "a licence": "hub: {repo: a, license: '@'}",
    "a link that is a list": HUB + "['@']}",
    "a folder of benchmarks": "evaluation: {benchmark_folder: ['@']}",
    "a folder without benchmarks": "evaluation: {benchmark_folder: '@'}",
    "a chat template": "base_model: {repo: a/b, chat_template: '@'}",
    "a chat template that is not there": "base_model: {repo: a/b, chat_template: '@.jinja'}",
    "a tracker": "training: {report_to: '@'}",
    "trackers": "training: {report_to: ['@']}",
    "a judge's address": "evaluation: {metrics: [judge], judge: {endpoint: '@', name: fake}}",
    "a judge's name that is a list": "evaluation: {metrics: [judge], judge: {endpoint: 'https://a/v1', name: ['@']}}",
    "markers": "evaluation: {answer_markers: '@'}",
    "a summary that is a list": "summary: ['@']",
    "a summary": "summary: 'of @'",
    "an unknown key": "'@': 1",
    "an unknown key of a section": "lora: {'@': 1}",
    "a key that is there twice": "lora: {'@': 1, '@': 2}",
    "a key that is too long": "lora: {'" + "x" * 10 + " @" + "x" * 200 + "': 1}",
    "a text that a comment cuts off": "summary: of ## @",
    "a wrong tag": "summary: !!bool '@'",
    "a number that is none": "summary: !!int '@'",
    "a file": "dataset: {sources: [{files: ['" + "x" * 180 + "@'], format: messages}]}",
    "a file that no folder has": "dataset: {sources: [{files: ['a\\0@'], format: messages}]}",
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", PLACES)
def test_no_secret_of_a_recipe_is_said(place, secret, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text, hidden = SECRETS[secret]
    write(tmp_path, with_sections(PLACES[place].replace("@", text)))
    main(["validate", "short.yaml"])
    said = capsys.readouterr().out
    assert said.startswith("short.yaml") and hidden not in said, said


def test_an_address_without_its_password_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, with_sections("dataset: {sources: [{files: 'https://bob:hunter2@host/x.jsonl'}]}"))
    assert main(["validate", "short.yaml"]) == 1
    said = "dataset.sources[0].files: 'https://host/x.jsonl' is text, not a list; write [https://host/x.jsonl]"
    assert said in capsys.readouterr().out
