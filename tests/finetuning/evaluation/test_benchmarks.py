"""Public benchmarks through lm-eval, with tasks of a folder: what is asked, and what is scored."""

import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.chat.template import stop_token
from finetuning.evaluation.benchmark_scores import ROWS, Examinee, ask, compare_benchmarks, sit_benchmarks
from finetuning.evaluation.benchmark_tasks import load_benchmarks
from finetuning.evaluation.exam import Candidate, Exam
from finetuning.evaluation.generation import Question
from finetuning.progress import Progress
from tests.finetuning.evaluation.benchmark_exam import SILENT, WHERE, asked, examinee, spec
from tests.tiny_models import ZEPHYR, save_tiny_model
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base"), ZEPHYR)


@pytest.fixture(scope="module")
def rows(base, tasks):
    """The score of each row of the tiny base model, and who was asked."""
    return asked(base, spec(tasks))


def loglikelihood(base, context, choice):
    """Of a continuation, row by row, in float32: what transformers itself says."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    start, ids = len(tokenizer(context).input_ids), tokenizer(context + choice, return_tensors="pt").input_ids
    with torch.no_grad():
        logs = model(ids).logits.log_softmax(-1)[0, start - 1 : -1]
    return logs.gather(1, ids[0, start:, None]).sum().item()


class Listening(Examinee):
    """Keeps what it was asked, and what it said of choices."""

    asked, said = (), ()

    def generate_until(self, requests, disable_tqdm=True):
        self.asked += tuple(request.args for request in requests)
        return super().generate_until(requests, disable_tqdm)

    def loglikelihood(self, requests, disable_tqdm=True):
        self.asked += tuple(request.args for request in requests)
        self.said = super().loglikelihood(requests, disable_tqdm)
        return self.said


def test_choices_are_scored_by_their_likelihood_after_the_plain_question(base, tasks):
    lm, rules = examinee(base, Listening), spec(tasks, "animals")
    rows = ask(lm, load_benchmarks(rules, WHERE), rules)
    assert lm.asked[:2] == (
        ("Question: What is 0?\nAnswer:", " a cat"),
        ("Question: What is 0?\nAnswer:", " a big dog"),
    )
    likely = [likelihood for likelihood, _ in lm.said]
    assert likely == pytest.approx([loglikelihood(base, *asked) for asked in lm.asked], abs=1e-3)
    chosen = np.argmax(np.reshape(likely, (-1, 2)), axis=1)
    assert list(rows["sum"]) == [float(choice == i % 2) for i, choice in enumerate(chosen)]
    assert set(rows["metric"]) == {"acc"}


def test_likelihoods_are_not_rounded_to_the_number_format_of_the_weights(base, tasks):
    lm, rules = examinee(base, Listening), spec(tasks, "animals")
    lm.model.to(torch.bfloat16)
    ask(lm, load_benchmarks(rules, WHERE), rules)
    likely = torch.tensor([likelihood for likelihood, _ in lm.said])
    assert (likely.bfloat16().float() != likely).float().mean() > 0.5


def test_what_generates_is_asked_as_a_turn_of_the_chat(base, tasks):
    lm, rules = examinee(base, Listening), spec(tasks, "sums")
    ask(lm, load_benchmarks(rules, WHERE), rules)
    assert [prompt for prompt, _ in lm.asked][:1] == ["<|user|>\nWhat is 0 + 0?</s>\n<|assistant|>\n"]
    assert lm.requests.answered == lm.requests.asked == 12


def test_an_answer_ends_with_the_chat_templates_own_stop_token(base):
    lm = examinee(base)
    lm.tokenizer.chat_template = ZEPHYR.replace("eos_token", "'<pad>'")
    assert lm.eot_token_id == stop_token(lm.tokenizer) == lm.tokenizer.pad_token_id != lm.tokenizer.eos_token_id
    always = torch.full((1, 1, 400), -9.0).index_fill(2, torch.tensor([lm.eot_token_id]), 9.0)
    lm.model.lm_head.register_forward_hook(lambda module, given, made: always[..., : made.shape[-1]].expand_as(made))
    ids = torch.tensor([[5, 6, 7]])
    assert lm._model_generate(ids, 20, ["\n"]).shape == (1, 4)


def test_a_head_that_the_adapter_trained_is_not_tied_again(tmp_path):
    folder = save_tiny_model("llama-3", tmp_path, ZEPHYR, tie_word_embeddings=True)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(modules_to_save=["lm_head"]))
    torch.nn.init.normal_(model.base_model.model.lm_head.modules_to_save["default"].weight)
    ids = torch.tensor([[5, 6, 7]])
    before = model.eval()(ids).logits
    Examinee(model, AutoTokenizer.from_pretrained(folder), 1, SILENT, "tuned")
    assert torch.equal(model(ids).logits, before)


def test_the_rows_are_the_first_of_each_task(base, tasks, rows):
    few = asked(base, spec(tasks, benchmark_rows=5))
    first = rows[rows["row"] < 5].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, first)


def test_a_perplexity_is_that_of_all_words_together(base, tasks, tmp_path):
    rows = asked(base, spec(tasks, "texts"))
    rows.to_parquet(tmp_path / ROWS)
    found = compare_benchmarks(tmp_path, tmp_path)["texts"]
    assert found.base == pytest.approx(math.exp(-rows["sum"].sum() / rows["weight"].sum()))
    assert found.metric == "word_perplexity" and found.higher_is_better is False
    assert found.gain == 0.0 and found.interval == (0.0, 0.0)


def test_base_and_tuned_sit_the_same_benchmarks_and_differ(base, tasks, tmp_path):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(tmp_path / "adapter")
    exam = Exam(AutoTokenizer.from_pretrained(base), [Question("0", [], [5, 9, 11], "")], [], [])
    kwargs = {"dtype": "float32", "device_map": "cpu", "attn_implementation": "sdpa", "trust_remote_code": False}
    rules, said = spec(tasks, "animals", "sums", "texts"), []
    benchmarks, progress = load_benchmarks(rules, WHERE), Progress(said.append, "", every=0.01)
    for name, adapter in {"a": None, "b": tmp_path / "adapter"}.items():
        (tmp_path / name).mkdir()
        with progress if name == "a" else SILENT:
            candidate = Candidate("tuned" if adapter else "base", base, adapter, kwargs)
            took = sit_benchmarks(rules, benchmarks, exam, candidate, progress, tmp_path / name)
        assert took.rows == {"animals": 12, "sums": 12, "texts": 12}
    found = compare_benchmarks(tmp_path / "a", tmp_path / "b")
    assert found["texts"].tuned != found["texts"].base
    assert any(line.startswith("base: ") and "requests of the benchmarks answered" in line for line in said)


ALONE = """
import os, sys
opened, connected = [], []
def watch(event, arguments):
    if event == "socket.connect":
        connected.append(arguments[1])
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        opened.append(arguments[0])
sys.addaudithook(watch)
from tests.finetuning.evaluation.benchmark_exam import asked, spec
rows = asked(sys.argv[1], spec(sys.argv[2]))
outside = [path for path in opened if not path.startswith((sys.argv[3], "/dev/"))]
print(len(rows), connected, outside)
"""


def test_tasks_of_a_folder_ask_nobody_and_write_nowhere_else(base, tasks, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", ALONE, str(base), str(tasks), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)
    assert done.stdout == "24 [] []\n", done.stdout + done.stderr[-2000:]
