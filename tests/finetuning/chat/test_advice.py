"""What a message advises is followed, and ends well."""

import re

import pytest
import yaml
from tokenizers import normalizers

from finetuning.checks.judgement import judge
from tests.finetuning.chat.made_rows import LONG, WORDS, Made, different

QUESTION = "Tell me about " + ", ".join(WORDS)
LONG_ANSWER = [{"question": "How long is it?", "answer": "word " * 300}]
NEAR = [{"question": f"{QUESTION} and nothing {end}", "answer": "#### 1"} for end in ("else", "more")]
FAULTS = {
    "duplicates": ([different(1)[0]], {}, "dataset.dedup: exact"),
    "near_duplicates": (NEAR, {"chat": LONG}, "dataset.dedup: near"),
    "stop_token": (LONG_ANSWER, {"chat": {"over_length": "truncate", "tolerance": 0.1}}, "over_length: drop"),
    "max_length": (LONG_ANSWER, {"chat": {"tolerance": 0.0}}, "chat: {max_length: …}"),
    "bad_rows": ([{"question": "q", "answer": ""}], {}, "checks: {bad_rows: {limit: …}}"),
    "secrets": ([{"question": "AKIA" + "IOSFODNN7" + "QRSTUVW", "answer": "x"}], {}, "checks: {secrets: {limit: …}}"),
}


def advised(text: str, pattern: str) -> dict:
    """The part of a recipe that the message advises: what stands between the marks, `…` being any value."""
    found = re.search("`(" + re.escape(pattern).replace("…", "[^}]+") + ")`", text)
    assert found, text
    dotted, _, value = found[1].partition(": ")
    if "." in dotted:
        return {dotted.rpartition(".")[2]: value}
    return yaml.safe_load(found[1])


@pytest.mark.parametrize("check", FAULTS)
def test_advice_that_is_followed_ends_well(tmp_path, tokenizer, check):
    rows, keys, pattern = FAULTS[check]
    rows = [*different(40), *rows]
    made = Made(tmp_path / "before", tokenizer, rows, **keys)
    (found,) = (judgement for judgement in judge(made.summary.checks, made.recipe) if judgement.name == check)
    assert not found.passed
    advice = advised(found.text, pattern)
    chat = keys.get("chat", {}) | ({"over_length": advice.pop("over_length")} if "over_length" in advice else {})
    after = Made(tmp_path / "after", tokenizer, rows, **{**keys, "chat": chat, **advice})
    assert check not in after.failed()


@pytest.mark.parametrize(
    ("normalizer", "reason"),
    [
        (normalizers.NFC(), None),
        (normalizers.NFD(), None),
        (normalizers.Strip(), None),
        (normalizers.Lowercase(), "changes the case of letters"),
        (normalizers.Replace("\n", " "), "loses spaces, line breaks or indentation"),
    ],
)
def test_a_tokenizer_that_changes_texts_is_a_fault_where_that_changes_what_they_mean(
    tmp_path, tokenizer, normalizer, reason
):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '</s>' if m['role'] == 'user' else '' }}{{ m['content'] }}"
        "{{ '</s>' if m['role'] == 'assistant' else '<s>' }}{% endfor %}"
    )
    tokenizer.backend_tokenizer.normalizer = normalizer
    texts = ["Tiếng Việt", "Cafe\u0301 crème", "Two  words", "One\nTwo", "if x:\n    a()"]
    made = Made(tmp_path, tokenizer, [{"question": f"{n}: {text}", "answer": text} for n, text in enumerate(texts)])
    reasons = {row["reason"] for row in made.findings if row["check"] == "round_trip"}
    assert reasons == ({reason} if reason else set())
    (found,) = (judgement for judgement in judge(made.summary.checks, made.recipe) if judgement.name == "round_trip")
    assert found.passed == (reason is None)
    if reason:
        assert "the model cannot learn" in found.text
