"""Rewards: the exam's own scores of what was drawn, and which rows can be rewarded at all."""

import math
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from finetuning.errors import FinetuningError
from finetuning.evaluation.metrics import METRICS, Metric, Outcome
from finetuning.evaluation.with_passages import uncited
from finetuning.recipe.knowledge import ContextSpec
from finetuning.reinforcement.checks import require_rewards
from finetuning.reinforcement.rewards import Answered, Rewards
from tests.finetuning.recipe.test_reward import recipe
from tests.finetuning.reinforcement.group_jobs import tiny_model

REFERENCE = "5\n#### 5"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(tiny_model(tmp_path_factory.mktemp("tiny")))


def answered(text, reference=REFERENCE, stopped=True, tokens=10):
    return Answered(Outcome(reference, text, stopped), tokens)


TEXTS = ["#### 5", "5\n#### 5", "#### 6", "who knows", "", "#### 5\n#### 6"]


@pytest.mark.parametrize("name", ["final-answer", "exact-match", "contains", "rouge-l", "chrf", "stop-rate"])
def test_the_reward_is_the_very_score_of_the_exam(tokenizer, name):
    found = Rewards({name: 1.0}, tokenizer, 20).scores(name, [answered(text) for text in TEXTS])
    assert found == [METRICS[name].score(Outcome(REFERENCE, text, True)) for text in TEXTS]


def test_format_is_1_for_a_final_answer_right_or_wrong_and_length_falls_with_tokens(tokenizer):
    rewards = Rewards({"format": 1.0, "length": 1.0}, tokenizer, 20)
    assert rewards.scores("format", [answered(text) for text in TEXTS]) == [1, 1, 1, 0, 0, 1]
    assert rewards.scores("length", [answered("", tokens=n) for n in (0, 5, 20, 21)]) == [1, 0.75, 0, 0]


def test_an_answer_is_read_as_the_exam_reads_it_up_to_its_stop_token(tokenizer):
    rewards = Rewards({"chrf": 1.0}, tokenizer, 20)
    ids = tokenizer("<think>\nTwice.\n</think>\n\n#### 5", add_special_tokens=False)["input_ids"]
    found = rewards.answered([*ids, rewards.stop], REFERENCE)
    assert (found.outcome.answer, found.outcome.stopped, found.tokens) == ("#### 5", True, len(ids) + 1)
    assert not rewards.answered(ids, REFERENCE).outcome.stopped


def test_the_recipes_own_words_before_an_answer_count(tokenizer):
    rewards = Rewards({"final-answer": 1.0}, tokenizer, 20, ["Respuesta"])
    assert rewards.scores("final-answer", [answered("Respuesta: 5")]) == [1.0]


CONTEXT = ContextSpec()
# What was said, the reference, where the passages with the answer are, and what of it is compared and how it cites.
WITH_PASSAGES = {
    "the right passage": ("18 months [2]", "18 months [2]", [2], 1, 1.0),
    "one of two right passages": ("18 months [3]", "18 months [2]", [2, 3], 1, 1.0),
    "another passage": ("18 months [1]", "18 months [2]", [2], 1, 0.0),
    "a passage that was not shown": ("18 months [9]", "18 months [2]", [2], 1, 0.0),
    "no passage": ("18 months", "18 months [2]", [2], 1, 0.0),
    "none was shown that has it": ("18 months [1]", "The documents do not say.", [], 0, math.nan),
    "a row of no document": ("argv[1]", "argv[1]", [], None, math.nan),
}


@pytest.mark.parametrize("name", WITH_PASSAGES)
def test_answers_with_passages_are_compared_and_cite_as_in_the_exam(tokenizer, name):
    said, reference, golden, rank, cites = WITH_PASSAGES[name]
    rewards = Rewards({"exact-match": 1.0, "citations": 1.0}, tokenizer, 20, context=CONTEXT)
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    found = rewards.answered([*ids, rewards.stop], reference, golden, rank)
    exam = SimpleNamespace(golden=[golden], ranks=[rank])
    (outcome,) = uncited([Outcome(reference, said, True)], exam, CONTEXT)
    assert found.outcome == outcome
    assert rewards.scores("citations", [found]) == pytest.approx([cites], nan_ok=True)
    counted = {}
    given = {"completion_ids": [ids], "reference": [reference], "golden": [golden], "rank": [rank]}
    _, of_citations = rewards.functions()
    assert of_citations(**given, log_metric=counted.__setitem__) == [None if math.isnan(cites) else cites]
    assert counted == {"rewards/citations/no_number": float(math.isnan(cites))}


@pytest.mark.parametrize("name", ["final-answer", "format"])
def test_where_passages_do_not_say_it_a_refusal_is_right_and_a_final_answer_is_not(tokenizer, name):
    rewards = Rewards({name: 1.0}, tokenizer, 20, context=CONTEXT)
    texts = [CONTEXT.refusal, f"I looked. {CONTEXT.refusal}", "#### 5"]
    assert rewards.scores(name, [answered(text, CONTEXT.refusal) for text in texts]) == [1, 1, 0]
    assert rewards.scores(name, [answered(text, "#### 5") for text in texts]) == [0, 0, 1]


def test_a_score_that_is_no_number_says_nothing_and_is_counted(tokenizer):
    rewards, counted = Rewards({"chrf": 1.0}, tokenizer, 20), {}
    rewards.metrics["chrf"] = Metric(lambda outcome: math.nan if "6" in outcome.answer else 0.5)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("#### 5", "#### 6")]
    (function,) = rewards.functions()
    found = function(completion_ids=ids, reference=[REFERENCE] * 2, log_metric=counted.__setitem__, prompts=[])
    assert found == [0.5, None] and counted == {"rewards/chrf/no_number": 0.5}
    assert function.__name__ == "chrf"


def test_code_that_cheats_ends_early_or_hangs_is_worth_nothing(tokenizer):
    reference = "```python\ndef twice(x):\n    return 2 * x\n\nassert twice(2) == 4\n```"
    tried = {
        "right": "def twice(x):\n    return x + x",
        "wrong": "def twice(x):\n    return x",
        "leaves before the asserts": "import os\nos._exit(0)",
        "asks for the end": "import sys\nsys.exit(0)",
        "equals everything": "def twice(x):\n    raise SystemExit",
        "starts a process": "import subprocess\nsubprocess.run(['true'])",
    }
    rewards = Rewards({"python-tests": 1.0}, tokenizer, 20)
    answers = [answered(f"```python\n{code}\n```", reference) for code in tried.values()]
    found = dict(zip(tried, rewards.scores("python-tests", answers), strict=True))
    assert found == {name: float(name == "right") for name in tried}


def test_code_that_is_slow_bent_or_not_waited_for_is_counted_and_the_last_of_these_says_nothing(tokenizer, monkeypatch):
    monkeypatch.setattr("finetuning.reinforcement.rewards.SECONDS", 2)  # and a half, for all of them
    reference = "```python\ndef twice(x):\n    return 2 * x\n\nassert twice(2) == 4\n```"
    texts = [
        "```python\ndef twice(x):\n    return 2 * x\n```",
        "```python\nclass E:\n    def __eq__(self, o):\n        return True\n\ntwice = lambda x: E()\n```",
        *(f"```python\nimport time\ntime.sleep(60 + {number})\n```" for number in range(6)),
    ]
    ids, counted = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts], {}
    (function,) = Rewards({"python-tests": 1.0}, tokenizer, 900).functions()
    found = function(completion_ids=ids, reference=[reference] * 8, log_metric=counted.__setitem__, prompts=[])
    assert found == [1.0, 0.0, *[None] * 6]
    assert counted == {
        "rewards/python-tests/slow": 0.0,
        "rewards/python-tests/bent": 1 / 8,
        "rewards/python-tests/no_number": 6 / 8,
    }


def written(folder, references, **columns):
    rows = [
        {"place": f"a:{i}", "messages": [{"role": "assistant", "content": text}]}
        | {name: values[i] for name, values in columns.items()}
        for i, text in enumerate(references)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return folder


@pytest.mark.parametrize(
    ("reward", "references", "message"),
    [
        (["final-answer"], ["#### 5", "no number"], "1 of 2 train rows state no final answer.*a:1: 'no number'"),
        (["python-tests"], ["```python\nx = 1\n```"] * 2, "2 of 2 train rows have no `assert`"),
        (["chrf"], ["5"], "a step draws 16 answers to 2 questions, and the train split has 1 rows"),
    ],
)
def test_rows_that_no_answer_could_be_right_for_are_found_before_training(tmp_path, reward, references, message):
    asked = recipe({"reward": reward, "per_device_train_batch_size": 16})
    with pytest.raises(FinetuningError, match=message):
        require_rewards(asked, written(tmp_path, references), 1)


def test_rows_that_can_be_rewarded_pass(tmp_path):
    require_rewards(recipe(), written(tmp_path, ["#### 5", "<think>\nhm\n</think>\n\n#### 6"]), 1)


def test_what_names_a_passage_and_a_refusal_are_no_missing_final_answers(tmp_path):
    dataset = {"sources": [{"files": ["a.jsonl"]}], "eval": {"sources": [{"files": ["b.jsonl"]}]}}
    asked = recipe(dataset=dataset, knowledge={"documents": [{"files": ["*.md"]}]})
    said = [asked.context.refusal, "18 [2]"]
    plain = [[{"role": "assistant", "content": text}] for text in (said[0], "18")]
    require_rewards(asked, written(tmp_path, said, asked=plain), 1)
    plain[1][0]["content"] = "many"
    with pytest.raises(FinetuningError, match=r"1 of 2 train rows state no final answer.*a:1: 'many'"):
        require_rewards(asked, written(tmp_path, said, asked=plain), 1)
