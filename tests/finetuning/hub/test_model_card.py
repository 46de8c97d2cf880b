"""The card: what the Hub reads of it, and what a person does, for recipes of several kinds."""

import ast
from dataclasses import replace
from typing import Any

import pytest
import yaml

from finetuning.evaluation.report import BenchmarkFigures, Report, Verdict
from finetuning.hub.endpoints import Endpoints
from finetuning.hub.loading_code import adapter_code, merged_code
from finetuning.hub.model_card import RepoVersion, adapter_header, limits, merged_card, merged_header, model_card
from finetuning.hub.publication import AdapterPublicationSummary, Base
from finetuning.merge.agreement import GgufSummary, MergedSummary
from finetuning.recipe.recipe import Recipe
from finetuning.settings import PUBLIC_HUB
from tests.finetuning.evaluation.test_evaluation_report import MADE, METRICS

REPORT = Report(
    adapter=MADE.adapter,
    rows=350,
    metrics=METRICS,
    answering={},
    verdict=Verdict(passed=True, reasons=("final-answer is better than the base beyond its noise",)),
)
VERSION = RepoVersion("me/phi-2-maths", "0123456789abcdef")
ON_MADE = MADE._replace(training={**MADE.training, "processes": 1}, chat={**MADE.chat, "stop_token": "<|im_end|>"})
BASE = Base("microsoft/phi-2", "810d367871c1d460086d9f82db8696f2e0a0fcd0", on_hub=True)
GSM8K = {"hub": "openai/gsm8k", "config": "main"}


def recipe_of(**sections: Any) -> Recipe:
    written = {
        "name": "phi-2",
        "summary": "Phi-2 solves maths",
        "base_model": {"repo": "microsoft/phi-2"},
        "dataset": {"sources": [GSM8K]},
        "hub": {"repo": "phi-2-maths", "license": "mit"},
    }
    return Recipe.model_validate(written | sections)


def card_of(recipe: Recipe, base: Base = BASE, made=ON_MADE, version: RepoVersion = VERSION) -> str:
    header = adapter_header(recipe, "me/phi-2-maths", base.repo_id, REPORT, made)
    return model_card(recipe, version, base, REPORT, made, header)


def merged_card_of(recipe: Recipe, gguf: GgufSummary | None = None, modelfile: str | None = None) -> str:
    published = AdapterPublicationSummary(
        repo_id="me/phi-2-maths", commit="3" * 40, tag="1" * 16, created=True, base=BASE
    )
    merged = MergedSummary(
        parameters=1, size_mb=2.0, dtype="bfloat16", positions=1712, agreement=0.9988, kl=0.0004, gguf=gguf
    )
    version = RepoVersion("me/phi-2-maths-merged", "2" * 16)
    return merged_card(recipe, version, REPORT, published, merged, modelfile)


def header_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---")[1])


def test_the_hub_is_told_what_was_scored_on_which_rows_of_which_commit():
    (index,) = header_of(card_of(recipe_of()))["model-index"]
    (result,) = index["results"]
    assert index["name"] == "phi-2-maths" and result["task"] == {"type": "text-generation"}
    assert result["dataset"] == {
        "name": "Eval split of phi-2",
        "type": "openai/gsm8k",
        "config": "main",
        "split": "train",
        "revision": "740312add88f",
    }
    assert result["metrics"][0] == {"type": "accuracy", "value": 0.6, "name": "final-answer"}
    assert [metric["name"] for metric in result["metrics"]] == list(METRICS)


def test_benchmarks_are_on_the_card_and_in_what_the_hub_reads():
    figures = {"base": 0.4, "tuned": 0.5, "gain": 0.1, "interval": [0.02, 0.18], "higher_is_better": True}
    found = {**figures, "metric": "acc", "rows": 500, "standard_errors": [0.02, 0.02]}
    report = REPORT.model_copy(update={"benchmarks": {"arc_easy": BenchmarkFigures(**found)}})
    header = adapter_header(recipe_of(), "me/phi-2-maths", BASE.repo_id, report, ON_MADE)
    card = model_card(recipe_of(), VERSION, BASE, report, ON_MADE, header)
    assert "| arc_easy " in card and "0.500 ± 0.020" in card
    result = header_of(card)["model-index"][0]["results"][-1]
    assert result["dataset"] == {"name": "arc_easy", "type": "arc_easy"}
    assert result["metrics"] == [{"type": "acc", "value": 0.5, "name": "acc"}]


def test_an_eval_split_of_its_own_is_the_data_set_that_is_named():
    recipe = recipe_of(dataset={"sources": [GSM8K], "eval": {"sources": [{**GSM8K, "split": "test"}]}})
    record = {**ON_MADE.sources[0], "stem": "eval-00", "split": "eval", "revision": "e53f048856ff"}
    made = ON_MADE._replace(sources=[*ON_MADE.sources, record])
    dataset = header_of(card_of(recipe, made=made))["model-index"][0]["results"][0]["dataset"]
    assert (dataset["type"], dataset["split"], dataset["revision"]) == ("openai/gsm8k", "test", "e53f048856ff")
    assert any("data sets of their own" in limit for limit in limits(recipe, REPORT))


def test_of_several_data_sets_none_is_named_for_the_score():
    recipe = recipe_of(dataset={"sources": [GSM8K, {"hub": "some/data"}]})
    header = header_of(card_of(recipe))
    assert header["datasets"] == ["openai/gsm8k", "some/data"]
    assert header["model-index"][0]["results"][0]["dataset"] == {"name": "Eval split of phi-2", "type": "eval-split"}


def test_a_licence_that_the_hub_does_not_know_is_there_by_name_and_link():
    named = {"license_name": "ours", "license_link": "https://example.org/ours"}
    recipe = recipe_of(hub={"repo": "phi-2-maths", "license": "other", **named})
    for header in (header_of(card_of(recipe)), merged_header(recipe, "me/phi-2-maths-merged", "a/b").to_dict()):
        assert {"license": "other", **named}.items() <= header.items()


def test_the_card_names_base_data_settings_and_versions():
    card = " ".join(card_of(recipe_of()).split())
    for fact in (
        "[`microsoft/phi-2`](/microsoft/phi-2/tree/810d367871c1d460086d9f82db8696f2e0a0fcd0)",
        "| microsoft/phi-2 at `810d367871c1d460086d9f82db8696f2e0a0fcd0` |",
        "| openai/gsm8k | 740312add88f | 7000 | train |",
        "6,600 rows to train on, with 90,000 learned tokens; 350 rows kept for evaluation.",
        "| longer than chat.max_length | 50 |",
        "| 10.0% | 60.0% | +50.00 points | +40.00 to +60.00 | better |",
        "- final-answer is better than the base beyond its noise",
        "| 20 steps, 5,000 tokens; learning rate 0.0002, cosine |",
        "12 s at 406 tokens/s, 1,466 MiB at most",
        "| bfloat16; base model quantized to 4 bits (nf4, its scales too) |",
        "| cpu, attention by sdpa |",
        "peft 0.21.2, torch 2.13.0",
        "learning_rate: 0.001",
        "`aaaaaaaaaaaaaaaa`",
    ):
        assert fact in card, fact


def test_limits_are_those_of_the_recipe():
    recipe = recipe_of(evaluation={"max_new_tokens": 77}, chat={"max_length": 333})
    said = " ".join(limits(recipe, REPORT))
    assert "350 rows, drawn from the same data as the training rows and kept out of these." in said
    assert "at most 77 tokens" in said and "at most 333 tokens" in said and "4 bits a weight" in said
    whole = recipe_of(base_model={"repo": "microsoft/phi-2", "quantization": None})
    assert "bits" not in " ".join(limits(whole, REPORT))


def test_the_arguments_that_its_template_has_by_default_are_named():
    given = {"enable_thinking": False, "mode": "brief"}
    (said,) = [limit for limit in limits(recipe_of(chat={"template_kwargs": given}), REPORT) if "arguments" in limit]
    assert said.endswith("evaluated with: `enable_thinking=False`, `mode='brief'`. Others were not evaluated.")
    assert "arguments" not in " ".join(limits(recipe_of(), REPORT))


def test_a_preference_is_not_called_a_completion():
    card = card_of(recipe_of(training={"method": "dpo", "beta": 0.2}))
    assert "preference optimization of chosen over rejected answers (DPO, beta 0.2, sigmoid loss)" in card
    assert "dpo" in header_of(card)["tags"]


def test_a_card_speaks_of_a_gate_only_where_there_is_one():
    without, gated = card_of(recipe_of()), card_of(recipe_of(evaluation={"gate": {"final-answer": {"min_gain": 0.1}}}))
    for words in ("The gate:", "passed the gate of its recipe"):
        assert words in gated and words not in without
    assert "The verdict:" in without and "where a recipe sets no gate" in without


def test_samples_are_promised_only_where_there_are_some():
    assert "answers of both side by side" in card_of(recipe_of())
    assert "answers of both side by side" not in card_of(recipe_of(evaluation={"samples": 0}))


CODES = {
    "four bits": ({"bits": 4, "type": "fp4", "double": False}, ["load_in_4bit", "fp4", "False", "bfloat16"]),
    "eight bits": ({"bits": 8}, ["load_in_8bit"]),
    "full precision": (None, []),
}


@pytest.mark.parametrize("case", CODES)
def test_the_base_model_is_quantized_as_it_was_unless_its_repo_holds_it_so(case):
    quantization, words = CODES[case]
    recipe = recipe_of(base_model={"repo": "microsoft/phi-2", "quantization": quantization})
    code = adapter_code(recipe, "me/phi-2-maths", "0" * 16, "<|im_end|>", quantize=True)
    ast.parse(code)
    assert all(word in code for word in words) and ("quantization_config" in code) == bool(words)
    assert "quantization" not in adapter_code(recipe, "me/phi-2-maths", "0" * 16, "<|im_end|>", quantize=False)


def test_code_of_a_model_that_brings_its_own_says_so_and_keeps_the_system_prompt():
    source = {**GSM8K, "system": 'Say "four" and \\ nothing else.'}
    recipe = recipe_of(base_model={"repo": "a/b", "trust_remote_code": True}, dataset={"sources": [source]})
    for code in (adapter_code(recipe, "me/a", "0" * 16, "</s>", quantize=True), merged_code(recipe, "me/a", "0" * 16)):
        assert code.count("trust_remote_code=True") == 2
        (messages,) = [
            ast.literal_eval(line.value)
            for line in ast.parse(code).body
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "messages"
        ]
        assert messages[0] == {"role": "system", "content": source["system"]}


def test_a_card_has_shell_lines_only_on_another_hub_than_the_public_one():
    assert "```bash" not in card_of(recipe_of())
    local = card_of(recipe_of(), version=replace(VERSION, endpoints=Endpoints.of("local", PUBLIC_HUB)))
    assert "on a local hub, its base model on another one" in local and "hf download me/phi-2-maths" in local
    assert 'repo, revision = "./phi-2-maths", "0123456789abcdef"' in local
    one = card_of(recipe_of(), version=replace(VERSION, endpoints=Endpoints.of("local", "local")))
    assert "export HF_ENDPOINT=" in one and 'repo, revision = "me/phi-2-maths"' in one


@pytest.mark.parametrize(("rank", "most"), [(4, 8), (16, 16), (24, 32)])
def test_vllm_is_given_a_rank_that_it_takes_and_the_bits_of_the_training(rank, most):
    made = ON_MADE._replace(settings={**ON_MADE.settings, "lora": {"r": rank}})
    card = card_of(recipe_of(), made=made)
    assert "vllm serve microsoft/phi-2 --revision 810d367871c1d460086d9f82db8696f2e0a0fcd0" in card
    assert f"--max-lora-rank {most} --lora-modules phi-2-maths=./phi-2-maths --quantization bitsandbytes" in card
    whole = recipe_of(base_model={"repo": "microsoft/phi-2", "quantization": None})
    assert "--quantization" not in card_of(whole)


@pytest.mark.parametrize("template", ["", '\nTEMPLATE """{{ .Prompt }}"""'])
def test_a_card_of_a_gguf_file_says_whether_ollama_asks_as_the_exam_did(template):
    gguf = GgufSummary(file="phi-2.q8_0.gguf", size_mb=2.0, positions=9, agreement=0.99, kl=0.0)
    card = merged_card_of(recipe_of(merge={"gguf": "q8_0"}), gguf, f"FROM ./phi-2.q8_0.gguf{template}")
    assert "`llama-server -m phi-2.q8_0.gguf --jinja`" in card
    assert "`ollama create phi-2-maths-merged -f Modelfile`" in card
    assert ("may differ from those of the evaluation" in card) is not bool(template)
    assert "ollama" not in merged_card_of(recipe_of(merge={}))


def test_template_syntax_and_dashes_in_a_recipe_stay_text_and_leave_the_header_alone():
    summary = "Says {{ 7 * 7 }} {% raise %} {# gone #}\n---\nlicense: other\n---"
    card, plain = card_of(recipe_of(summary=summary)), card_of(recipe_of())
    assert f"\n{summary}\n" in card
    assert header_of(card) == header_of(plain)


def test_a_merged_model_claims_no_scores_of_its_own():
    card = merged_card_of(recipe_of(merge={"dtype": "bfloat16"}))
    assert "model-index" not in header_of(card) and header_of(card)["base_model_relation"] == "finetune"
    assert "in 99.88% of" in card and "[`me/phi-2-maths`](/me/phi-2-maths/tree/1111111111111111)" in card
    assert "350 rows of the eval split" in card and "quantized to 4 bits and back" in card
