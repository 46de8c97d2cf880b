"""An exam that can only fail is found before anything is trained."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from finetuning.errors import FinetuningError
from finetuning.evaluation.intervals import least_rows
from finetuning.evaluation.references import (
    Reference,
    as_answered,
    by_data,
    references_of,
    require_answerable,
    require_rows,
    with_metrics,
)
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.recipe.loading import load
from tests.tiny_models import ZEPHYR, save_tiny_model

WORDS = Reference("train-00.parquet:3", "Paris, of course.")
NUMBER = Reference("train-00.parquet:4", "2 + 2 = 4\n#### 4")
CODE = Reference("train-00.parquet:5", "```python\ndef one():\n    return 1\n```")


@pytest.mark.parametrize(
    ("metric", "references", "message"),
    [
        ("final-answer", [WORDS, NUMBER], r"phi\.yaml: .*1 of 2 references state no final answer.*train-00\.parquet:3"),
        ("python-tests", [WORDS, NUMBER], r"none of 2 references holds Python code; the first is train-00\.parquet:3"),
    ],
)
def test_references_by_which_no_answer_could_be_right_are_a_mistake(metric, references, message):
    spec = EvaluationSpec(metrics=(metric,))
    with pytest.raises(FinetuningError, match=message):
        require_answerable(spec, references, "phi.yaml")
    require_answerable(spec, [NUMBER] if metric == "final-answer" else [WORDS, CODE])
    require_answerable(EvaluationSpec(metrics=("chrf", "exact-match")), references)


PROSE = "Открыто каждый день, кроме воскресенья и праздников; касса закрывается на час раньше, чем сам музей."
UNREACHABLE = {
    "words that rouge-l cannot read": ({"metrics": ["rouge-l"]}, PROSE, "letters a to z and digits alone"),
    "signs that rouge-l cannot read": ({"metrics": ["chrf", "rouge-l"]}, "你好世界", "letters a to z and digits alone"),
    "longer than answers": ({"metrics": ["exact-match"], "max_new_tokens": 4}, "word " * 500, "max_new_tokens, 4"),
    "a final answer behind their end": (
        {"metrics": ["final-answer"], "max_new_tokens": 16},
        "so " * 40 + "\n#### 5",
        "max_new_tokens, 16",
    ),
    "a gate that is beyond reach": (
        {"metrics": ["chrf"], "max_new_tokens": 4, "gate": {"chrf": {"min_score": 0.5}}},
        "one two three four five six seven eight nine ten eleven twelve",
        "evaluation.gate asks for 0.5",
    ),
    "a gain that is beyond reach": (
        {"metrics": ["exact-match"], "max_new_tokens": 4, "gate": {"exact-match": {"min_gain": 0.1}}},
        "word " * 9,
        "evaluation.gate asks for 0.1",
    ),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_an_exam_that_the_references_themselves_would_fail_is_a_mistake(case):
    written, text, message = UNREACHABLE[case]
    references = [Reference(f"rows.jsonl:{row}", text) for row in range(6)]
    spec = EvaluationSpec.model_validate(written)
    with pytest.raises(FinetuningError, match=rf"phi\.yaml: evaluation\.metrics: .* no model could pass: .*{message}"):
        require_answerable(spec, references, "phi.yaml")
    if "max_new_tokens" in written:
        require_answerable(spec.model_copy(update={"max_new_tokens": 600}), references)
        require_answerable(spec, references, whole=True)


FUNCTION = "```python\ndef total(a, b):\n    both = a + b\n    return both\n\nassert total(1, 2) == 3\n```"
SCRIPT = "".join(f"print({number})\n" for number in range(40))
LONG_THOUGHT = "so " * 2000
CUT = "answers end after evaluation.max_new_tokens"
# What the recipe asks for, the references, in how many of which the text stands, and what is told.
ONLY_FAILS = {
    "code in one of 200": ({"metrics": ["python-tests"]}, FUNCTION, 1, "it runs Python code"),
    "code in half of them, and a gate": (
        {"metrics": ["python-tests"], "gate": {"python-tests": {"min_score": 0.9}}},
        FUNCTION,
        100,
        "it runs Python code.* come to 0.500, where evaluation.gate asks for 0.9",
    ),
    "code that ends too late": ({"metrics": ["python-tests"], "max_new_tokens": 8}, FUNCTION, 200, CUT),
    "code without marks that ends too late": (
        {"metrics": ["python-tests"], "max_new_tokens": 6},
        "def total(a, b):\n    both = (a +\n    b)\n    return both",
        200,
        CUT,
    ),
    "a thought that ends too late": ({"metrics": ["exact-match"], "max_new_tokens": 64}, "Paris", 200, CUT),
    "stops that come too late": (
        {"metrics": ["chrf"], "max_new_tokens": 16, "gate": {"stop-rate": {"min_score": 0.9}}},
        "word " * 40,
        200,
        "stop-rate: .* come to 0.000, where evaluation.gate asks for 0.9",
    ),
    "stops of which too many come too late": (
        {"metrics": ["chrf"], "max_new_tokens": 16, "gate": {"chrf": {}, "stop-rate": {"min_score": 0.9}}},
        "word " * 40,
        50,
        "stop-rate: .* come to 0.750, where evaluation.gate asks for 0.9",
    ),
    "a gain in stops that is beyond reach": (
        {"metrics": ["chrf"], "max_new_tokens": 16, "gate": {"stop-rate": {"min_gain": 0.5}}},
        "word " * 40,
        150,
        "stop-rate: .* come to 0.250, where evaluation.gate asks for 0.5",
    ),
    "final answers of which too many come too late": (
        {"metrics": ["final-answer"], "max_new_tokens": 16, "gate": {"unclear": {"max_score": 0.1}}},
        "so " * 40 + "\n#### 5",
        50,
        "unclear: .* come to 0.250, where evaluation.gate asks for at most 0.1",
    ),
}


@pytest.mark.parametrize("case", ONLY_FAILS)
def test_an_exam_that_too_few_of_the_references_would_pass_is_a_mistake(case):
    written, text, number, message = ONLY_FAILS[case]
    thought = LONG_THOUGHT if "thought" in case else ""
    there = [Reference(f"rows.jsonl:{row}", text, thought=thought) for row in range(number)]
    others = [Reference(f"rows.jsonl:{row}", "#### 4") for row in range(number, 200)]
    spec = EvaluationSpec.model_validate(written)
    with pytest.raises(FinetuningError, match=rf"phi\.yaml: evaluation\.metrics: .*{message}"):
        require_answerable(spec, [*there, *others], "phi.yaml")
    enough = spec.model_copy(update={"max_new_tokens": 2100})
    require_answerable(enough, there * (200 // number), "phi.yaml")
    if "max_new_tokens" in written:
        require_answerable(spec, [*there, *others], "phi.yaml", whole=True)


def test_what_ends_in_time_can_be_passed():
    def asked(text, most, **written):
        spec = EvaluationSpec.model_validate({"metrics": ["python-tests"], "max_new_tokens": most, **written})
        require_answerable(spec, [Reference(f"rows.jsonl:{row}", text) for row in range(200)])

    asked(SCRIPT, 10)  # its first lines run to their end, and nothing is asserted
    asked(FUNCTION, 11)  # all but the assert
    asked("five words that end here", 6, metrics=["chrf"], gate={"stop-rate": {"min_score": 0.9}})
    asked("word " * 40, 6, metrics=["chrf", "stop-rate"])  # which decides nothing but that it be no worse
    with pytest.raises(FinetuningError, match="stop-rate: no model could pass"):
        asked("five words that end here", 5, metrics=["chrf"], gate={"stop-rate": {"min_score": 0.9}})


def test_what_was_thought_has_to_fit_where_it_is_learned(tmp_path):
    spec = EvaluationSpec(metrics=("exact-match",), max_new_tokens=64)
    told = {"role": "assistant", "content": "Paris", "reasoning_content": LONG_THOUGHT}
    for said in (asked(f"<think>\n{LONG_THOUGHT}\n</think>\n\nParis"), [{"role": "user", "content": "?"}, told]):
        exam_of_rows(tmp_path, [said] * 6)
        found = references_of(tmp_path, 6)
        assert {reference.text for reference in found} == {"Paris"}
        with pytest.raises(FinetuningError, match="exact-match: no model could pass: answers end after"):
            require_answerable(spec, found)
        require_answerable(spec, references_of(tmp_path, 6, with_thoughts=False))
        require_answerable(spec.model_copy(update={"max_new_tokens": 2100}), found)


def test_answers_end_by_the_models_own_tokens(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(save_tiny_model("smollm2-135m", tmp_path, ZEPHYR))
    text = "Incomprehensibilities"
    tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    references = [Reference(f"rows.jsonl:{row}", text) for row in range(6)]
    require_answerable(EvaluationSpec(metrics=("exact-match",), max_new_tokens=tokens), references, "", tokenizer)
    with pytest.raises(FinetuningError, match="no model could pass"):
        require_answerable(
            EvaluationSpec(metrics=("exact-match",), max_new_tokens=tokens - 1), references, "", tokenizer
        )


def test_a_gate_that_any_share_passes_can_be_passed():
    spec = EvaluationSpec.model_validate(
        {"metrics": ["exact-match"], "max_new_tokens": 1, "gate": {"exact-match": {"min_gain": -1.0}}}
    )
    require_answerable(spec, [Reference("rows.jsonl:1", "two words")] * 6)


def test_what_was_thought_is_no_part_of_a_reference(tmp_path):
    exam_of_rows(tmp_path, [asked("<think>\nTwice 4.\n</think>\n\n8"), asked("9")])
    assert [reference.text for reference in references_of(tmp_path, 2)] == ["8", "9"]


def chosen(texts: list[str], **evaluation: object) -> tuple[tuple[str, ...], list[str]]:
    """The metrics for references of these texts, and what the log says."""
    recipe = load("smollm2-135m")
    spec = EvaluationSpec.model_validate(evaluation)
    said: list[str] = []
    references = [Reference("train-00.parquet:1", text) for text in texts]
    return with_metrics(
        recipe.model_copy(update={"evaluation": spec}), references, said.append
    ).evaluation.metrics, said


LONG = "Our shop opens at nine, and closes when the last guest has gone home."


@pytest.mark.parametrize(
    ("texts", "evaluation", "metrics"),
    [
        (["1 + 1 = 2\n#### 2", "The answer is 3."], {}, ("final-answer",)),
        (["2", "1/2", "1,000"], {}, ("final-answer",)),
        (["x\nRespuesta: 4", "y\nrespuesta 5"], {"answer_markers": ["Respuesta"]}, ("final-answer",)),
        (["x\nRespuesta: 4", "y\nrespuesta 5"], {}, ("chrf",)),
        (["positive", "negative", "2"], {}, ("exact-match",)),
        (["positive", LONG], {}, ("chrf",)),
        (["#### 2", LONG], {}, ("chrf",)),
        ([LONG], {"gate": {"rouge-l": {"min_gain": 0.1}}}, ("rouge-l",)),
        ([LONG], {"gate": {"stop-rate": {"min_score": 0.9}}}, ("chrf",)),
        (["#### 2"], {"gate": {"unclear": {"max_score": 0.9}}}, ("final-answer",)),
        ([LONG], {"gate": {"loss": {}}}, ("chrf", "loss")),
    ],
)
def test_metrics_that_a_recipe_leaves_out_follow_the_data(texts, evaluation, metrics):
    found, said = chosen(texts, **evaluation)
    assert found == metrics
    assert len(said) == 1 and said[0].startswith(f"evaluation.metrics: {', '.join(metrics)}, ")


def test_metrics_that_a_recipe_names_are_those_that_count():
    assert chosen([LONG], metrics=["final-answer"]) == (("final-answer",), [])


RULES = {
    "a metric alone": (2, {"metrics": ["exact-match"], "no_worse_than_published": False}),
    "beside the published one": (3, {"metrics": ["exact-match"]}),
    "six metrics": (6, {"metrics": ["loss", "chrf", "rouge-l", "contains"]}),
    "benchmarks": (12, {"metrics": ["exact-match"], "benchmarks": [f"task-{n}" for n in range(9)]}),
    "a gate that may tell nothing of answers": (3, {"metrics": ["exact-match"], "gate": {"exact-match": {}}}),
    "a gate on all": (1, {"metrics": ["chrf"], "gate": {"chrf": {}, "empty": {}}}),
}


@pytest.mark.parametrize("case", RULES)
def test_too_few_rows_for_any_verdict_are_a_mistake(case):
    rules, written = RULES[case]
    spec, least = EvaluationSpec.model_validate(written), least_rows(rules)
    for rows in (0, 1, least - 1):
        told = rf"phi\.yaml: evaluation: {rows} eval rows can prove nothing.* takes {least} where {rules} rules"
        with pytest.raises(FinetuningError, match=told):
            require_rows(spec, rows, "phi.yaml")
    require_rows(spec, least, "phi.yaml")


def test_the_references_are_the_last_answers_of_the_first_eval_rows(tmp_path):
    def row(number: int) -> dict:
        asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": f"#### {number}"}]
        return {"messages": asked, "tools": None, "place": f"rows.jsonl:{number}"}

    pq.write_table(pa.Table.from_pylist([row(number) for number in range(9)]), tmp_path / "eval.parquet")
    found = references_of(tmp_path, 2)
    assert found == [Reference("rows.jsonl:0", "#### 0"), Reference("rows.jsonl:1", "#### 1")]


def exam_of_rows(folder, messages, **columns):
    rows = [
        {"messages": said, "place": f"rows.jsonl:{i}", **{name: values[i] for name, values in columns.items()}}
        for i, said in enumerate(messages)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "eval.parquet")


def asked(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]


def test_no_answer_is_compared_with_one_that_was_judged_bad(tmp_path):
    exam_of_rows(tmp_path, [asked(str(n)) for n in range(6)], desirable=[n % 2 > 0 for n in range(6)])
    assert [reference.text for reference in references_of(tmp_path, 2)] == ["1", "3"]
    exam_of_rows(tmp_path, [asked("0")], desirable=[False])
    with pytest.raises(FinetuningError, match="no answer in the eval split was judged good"):
        references_of(tmp_path, 2)


def test_texts_are_examined_where_there_is_no_conversation(tmp_path):
    text = [{"role": "text", "content": "It rained."}]
    exam_of_rows(tmp_path, [text, asked("5"), text])
    assert references_of(tmp_path, 3) == [Reference("rows.jsonl:1", "5")]
    exam_of_rows(tmp_path, [text, text])
    found = references_of(tmp_path, 3)
    assert [reference.is_text for reference in found] == [True, True]
    assert by_data(EvaluationSpec(), found)[0] == "perplexity"


def test_what_names_a_passage_is_written_and_not_compared(tmp_path):
    whole, plain = [asked("18 [2]"), asked("argv[1]")], [asked("18"), asked("argv[1]")]
    exam_of_rows(tmp_path, whole, asked=plain)
    found = references_of(tmp_path, 2)
    assert [(reference.text, reference.said) for reference in found] == [("18", "18 [2]"), ("argv[1]", "argv[1]")]
    spec = EvaluationSpec(metrics=("final-answer", "exact-match"))
    require_answerable(spec, found[:1] * 6)
    assert by_data(EvaluationSpec(), found[:1])[0] == "final-answer"
    # Its tokens count where answers end.
    tight = EvaluationSpec(metrics=("stop-rate",), max_new_tokens=2)
    assert not as_answered(tight, found[0], None, whole=False).stopped
    assert as_answered(tight, found[0], None, whole=False).answer == "18"
