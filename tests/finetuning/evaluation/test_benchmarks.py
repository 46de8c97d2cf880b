"""Public benchmarks through lm-eval, with tasks of a folder: what is asked, what is scored, and what is refused."""

import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.chat.template import stop_token
from finetuning.errors import FinetuningError
from finetuning.evaluation.benchmark_scores import ROWS, Examinee, ask, compare_benchmarks, sit_benchmarks
from finetuning.evaluation.benchmark_scores import compare as compare_rows
from finetuning.evaluation.benchmark_tasks import load_benchmarks, tasks_revision
from finetuning.evaluation.comparison import compare
from finetuning.evaluation.exam import Candidate, Exam
from finetuning.evaluation.generation import Question
from finetuning.evaluation.metrics import METRICS, Outcome
from finetuning.evaluation.report import BenchmarkFigures, Figures
from finetuning.evaluation.tables import benchmarks_table
from finetuning.evaluation.verdict import judge
from finetuning.progress import Progress
from finetuning.recipe import benchmark_names
from finetuning.recipe.__main__ import main
from finetuning.recipe.benchmark_names import require_names
from finetuning.recipe.evaluation import EvaluationSpec
from tests.benchmark_folder import write_tasks
from tests.tiny_models import ZEPHYR, save_tiny_model
from tests.waiting import PATIENCE

SILENT = Progress(lambda line: None, "")
WHERE = "recipes/tiny.yaml"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base"), ZEPHYR)


def spec(tasks, *names, **settings):
    names = names or ("animals", "sums")
    return EvaluationSpec(benchmarks=names, benchmark_folder=str(tasks), **{"batch_size": 4, **settings})


def examinee(base, kind=Examinee):
    tokenizer = AutoTokenizer.from_pretrained(base)
    return kind(AutoModelForCausalLM.from_pretrained(base).eval(), tokenizer, 4, SILENT, "base")


def asked(base, spec):
    return ask(examinee(base), load_benchmarks(spec, WHERE), spec)


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


def scored(folder, shares, name="animals", texts="same", **columns):
    """`folder`, where a model has these scores."""
    folder.mkdir()
    rows = {"benchmark": name, "metric": "acc", "aggregation": "mean", "higher_is_better": True, "task": name}
    frame = pd.DataFrame({"row": range(len(shares)), "text": texts, "sum": shares, "weight": 1.0})
    frame.assign(**{**rows, **columns}).to_parquet(folder / ROWS)
    return folder


def test_the_interval_of_a_benchmark_is_that_of_a_metric(tmp_path):
    rng = np.random.default_rng(5)
    before, after = ((rng.random(80) < share).astype(float) for share in (0.6, 0.4))
    found = compare_benchmarks(scored(tmp_path / "a", before), scored(tmp_path / "b", after))["animals"]
    sides = ([Outcome("yes", "yes" if right else "no", True) for right in side] for side in (before, after))
    assert found.interval == pytest.approx(compare(METRICS["exact-match"], *sides).interval)
    assert found.gain == pytest.approx(after.mean() - before.mean())
    assert found.standard_errors[0] == pytest.approx(before.std() / math.sqrt(80), rel=0.05)


def test_scores_of_other_rows_are_not_compared(tmp_path):
    with pytest.raises(FinetuningError, match=r"rows have changed since the base model was asked.*Delete that folder"):
        compare_benchmarks(scored(tmp_path / "a", [1.0]), scored(tmp_path / "b", [1.0], texts="other"))


GAINED = {"exact-match": Figures(base=0.1, tuned=0.9, gain=0.8, interval=(0.7, 0.9), higher_is_better=True)}
STOPS = {
    "stop-rate": Figures(base=0.9, tuned=0.9, gain=0.0, interval=(0.0, 0.0), higher_is_better=True),
    "empty": Figures(base=0.0, tuned=0.0, gain=0.0, interval=(0.0, 0.0), higher_is_better=False),
}


@pytest.mark.parametrize(("right", "passed"), [(36, True), (35, True), (20, False), (40, True), (48, True)])
@pytest.mark.parametrize("gate", [{}, {"exact-match": {"min_gain": 0.0}}])
def test_a_benchmark_that_fell_too_far_fails_the_verdict_with_a_gate_or_without(tmp_path, right, passed, gate):
    before, after = [1.0] * 40 + [0.0] * 40, [1.0] * right + [0.0] * (80 - right)
    benchmarks = compare_benchmarks(scored(tmp_path / "a", before), scored(tmp_path / "b", after))
    rules = EvaluationSpec.model_validate({"metrics": ["exact-match"], "benchmarks": ["animals"], "gate": gate})
    verdict = judge(rules, 200, GAINED | STOPS, benchmarks)
    assert verdict.passed is passed
    beyond = {35: ("0.062", "not beyond", "0.438"), 20: ("0.250", "beyond", "0.250")}
    if right in beyond:
        fall, noise, tuned = beyond[right]
        assert verdict.reasons[-1].startswith(
            f"animals fell by {fall}, more than the 0.050 that evaluation.max_benchmark_fall allows, {noise} its noise "
            f"(acc 0.500 before, {tuned} after; gain -{fall}, interval -"
        )


@pytest.mark.parametrize("rows", [20, 50, 200])
@pytest.mark.parametrize("names", [1, 5])
def test_benchmarks_of_a_model_that_is_as_good_seldom_fail_however_few_their_rows_are(rows, names):
    rng, rules = np.random.default_rng(rows), EvaluationSpec(metrics=("exact-match",))
    exams, failed = 150, 0
    for _ in range(exams):
        found = {}
        for name in range(names):
            scores = rng.random(rows)
            sides = [
                pd.DataFrame(
                    {
                        "sum": right.astype(float),
                        "weight": 1.0,
                        "aggregation": "mean",
                        "metric": "acc",
                        "higher_is_better": True,
                    }
                )
                for right in (scores < 0.5, (scores + 0.15) % 1 < 0.5)
            ]
            found[str(name)] = compare_rows(*sides)
        failed += not judge(rules, 200, GAINED | STOPS, found).passed
    assert failed / exams <= 0.025 + 3 * (0.025 * 0.975 / exams) ** 0.5


@pytest.mark.parametrize("edge", ["base", "tuned", "gain", "interval"])
def test_a_benchmark_that_is_no_number_says_so_and_fails(edge):
    figures = {"base": 0.4, "tuned": 0.4, "gain": 0.0, "interval": (-0.1, 0.1)}
    wrong = figures | {edge: (math.nan, math.nan) if edge == "interval" else math.nan}
    if edge == "base":
        wrong["gain"] = math.nan
    found = BenchmarkFigures(metric="acc", rows=9, standard_errors=(0.1, 0.1), higher_is_better=True, **wrong)
    verdict = judge(EvaluationSpec(metrics=("exact-match",)), 200, GAINED | STOPS, {"animals": found})
    assert not verdict.passed and verdict.reasons[-1].startswith("animals is no number")


def test_a_perplexity_beyond_all_numbers_is_a_large_one(tmp_path):
    texts = {"aggregation": "weighted_perplexity", "metric": "word_perplexity", "higher_is_better": False}
    before, after = (
        pd.DataFrame({"sum": [nats, nats - 1, nats + 1.0], "weight": 1.0, **texts}) for nats in (-800, -90)
    )
    found = compare_rows(before, after)
    assert all(map(math.isfinite, (found.base, found.tuned, found.gain, *found.interval, *found.standard_errors)))
    assert found.base > found.tuned > 1e30 and found.improvement > 0
    assert benchmarks_table({"texts": found})["base"][0].startswith("1.000e+100")


@pytest.mark.parametrize(
    ("tuned", "interval", "passed"),
    [(20.9, (0.8, 1.0), True), (21.1, (0.0, 2.2), True), (24.0, (3.0, 5.0), False)],
)
def test_of_a_perplexity_the_fall_is_a_share_of_the_bases(tuned, interval, passed):
    found = BenchmarkFigures(
        metric="word_perplexity",
        rows=9,
        base=20.0,
        tuned=tuned,
        gain=tuned - 20.0,
        interval=interval,
        standard_errors=(0.1, 0.1),
        higher_is_better=False,
    )
    rules = EvaluationSpec.model_validate({"metrics": ["exact-match"], "benchmarks": ["texts"]})
    assert judge(rules, 200, GAINED | STOPS, {"texts": found}).passed is passed


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


REFUSED = {
    "a name that is like another": (("animls",), r"no task of lm-eval.*'animls'; nearest is animals"),
    "a group without one metric": (("both",), r"both: its tasks have not one metric but acc, exact_match"),
    "code of the model's": (("humaneval_own",), r"humaneval_own runs code that the model wrote"),
    "no mean over rows": (("median",), r"none of its metrics \(acc\) is a mean over rows"),
    "no rows": (("lost",), r"lost: lm-eval cannot load it: FileNotFoundError: .*nowhere\.jsonl"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_run_is_said_before_anything_is_trained(tasks, tmp_path, case):
    write_tasks(tmp_path)
    text = (tasks / "animals.yaml").read_text()
    others = {
        "humaneval_own": text + "unsafe_code: true\n",
        "median": text.replace("mean", "median", 1).replace("  - {metric: acc_norm", "#"),
        "lost": text.replace("animals.jsonl", "nowhere.jsonl"),
    }
    for name, other in others.items():
        (tmp_path / f"{name}.yaml").write_text(other.replace("task: animals", f"task: {name}"))
    names, message = REFUSED[case]
    with pytest.raises(FinetuningError, match=rf"recipes/tiny\.yaml: evaluation\.benchmarks: .*{message}"):
        load_benchmarks(spec(tmp_path, *names), WHERE)


def test_without_lm_eval_it_is_said_how_to_get_it(tasks, monkeypatch):
    monkeypatch.setattr(benchmark_names, "PACKAGE", "lm_eval_that_is_not_there")
    with pytest.raises(FinetuningError, match=r"animals, sums: lm-eval is not installed.*pip install -c constraints"):
        require_names(spec(tasks), WHERE)
    assert load_benchmarks(EvaluationSpec(), WHERE) == {}


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(FinetuningError, match=r"evaluation\.benchmark_folder: .*nowhere is not a folder"):
        require_names(spec(tmp_path / "nowhere"), WHERE)


def test_the_check_of_recipes_looks_names_up(tmp_path, tasks, capsys):
    recipe = {
        "summary": "A recipe with benchmarks",
        "base_model": {"repo": "microsoft/phi-2"},
        "dataset": {"sources": [{"hub": "openai/gsm8k"}]},
        "evaluation": {"benchmarks": ["animals"], "benchmark_folder": str(tasks)},
        "hub": {"repo": "tiny", "license": "mit"},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert main(["validate", str(path)]) == 0
    recipe["evaluation"]["benchmark_folder"] = str(tmp_path / "nowhere")
    path.write_text(yaml.safe_dump(recipe))
    assert main(["validate", str(path)]) == 1
    assert f"evaluation.benchmark_folder: {tmp_path / 'nowhere'} is not a folder" in capsys.readouterr().out


def test_an_edited_task_or_row_is_another_benchmark(tmp_path):
    rules = spec(write_tasks(tmp_path / "mine"))
    first = tasks_revision(rules)
    (tmp_path / "mine" / "__pycache__").mkdir()
    (tmp_path / "mine" / "__pycache__" / "scores.pyc").write_bytes(b"")
    assert tasks_revision(rules) == first
    (tmp_path / "mine" / "sums.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    assert tasks_revision(rules) != first
    assert tasks_revision(EvaluationSpec()) == {}


ALONE = """
import os, sys
opened, connected = [], []
def watch(event, arguments):
    if event == "socket.connect":
        connected.append(arguments[1])
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        opened.append(arguments[0])
sys.addaudithook(watch)
from tests.finetuning.evaluation.test_benchmarks import asked, spec
rows = asked(sys.argv[1], spec(sys.argv[2]))
outside = [path for path in opened if not path.startswith((sys.argv[3], "/dev/"))]
print(len(rows), connected, outside)
"""


def test_tasks_of_a_folder_ask_nobody_and_write_nowhere_else(base, tasks, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", ALONE, str(base), str(tasks), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)
    assert done.stdout == "24 [] []\n", done.stdout + done.stderr[-2000:]


def test_what_a_task_takes_from_elsewhere_is_in_the_revision(tmp_path):
    folder, outside = tmp_path / "tasks", tmp_path / "outside"
    for path in (folder, outside / "linked"):
        path.mkdir(parents=True)
    names = ["base.yaml", "rows.jsonl", "linked/more.yaml", "deeper.yaml"]
    files = [*(outside / name for name in names), folder / ".rows.jsonl"]
    for path in files:
        path.write_text("x")
    (outside / "base.yaml").write_text("include: deeper.yaml\n")
    (folder / "linked").symlink_to(outside / "linked")
    (folder / "a.yaml").write_text(
        f"task: a\ninclude: ../outside/base.yaml\ndataset_kwargs:\n  data_files:\n    test: {outside}/rows.jsonl\n"
        f"    dev: '{folder}/.rows.jsonl'\n"
    )
    rules = spec(folder, "a")
    for path in files:
        before = tasks_revision(rules)
        path.write_text(path.read_text() + "# y")
        assert tasks_revision(rules) != before, path
