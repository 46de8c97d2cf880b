"""Chat templates: the tokenizer's own, a shipped one, a file; what they need, and what cannot be learned from."""

import psutil
import pytest

from finetuning.base_model.source import rows_of
from finetuning.chat import trial
from finetuning.chat.template import load_template, stop_token, texts
from finetuning.chat.tokenization import token_ids
from finetuning.chat.tokenizer import load_tokenizer
from finetuning.dataset.row_faults import RowDropped
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import BaseModelSpec
from tests.tiny_models import ZEPHYR, save_tiny_model

WHERE = "x.yaml"
QUESTION, ANSWER = {"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "#### 5"}
TOKENS = ["<|im_start|>", "<|im_end|>"]


def mistake(tokenizer, template: str) -> str:
    with pytest.raises(FinetuningError) as error:
        load_template(tokenizer, template, WHERE)
    assert str(error.value).startswith(f"{WHERE}: base_model.chat_template: ")
    return str(error.value)


def test_native_is_the_tokenizers_own_template(smollm2_tokenizer):
    before = smollm2_tokenizer.chat_template
    assert load_template(smollm2_tokenizer, "native", WHERE) == {}
    assert smollm2_tokenizer.chat_template == before


def test_native_needs_a_template(tiny_tokenizer):
    found = mistake(tiny_tokenizer, "native")
    assert "has no chat template of its own" in found
    assert "chat_template: instruction" in found and "chat_template: chatml" in found


def test_instruction_is_plain_text_that_ends_answers_with_the_end_of_text(tiny_tokenizer):
    assert load_template(tiny_tokenizer, "instruction", WHERE) == {}
    messages = [{"role": "system", "content": "Be brief."}, QUESTION, ANSWER, QUESTION]
    assert tiny_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "### System:\nBe brief.\n\n### User:\nWhat is 2 + 3?\n\n### Assistant:\n#### 5</s>\n\n"
        "### User:\nWhat is 2 + 3?\n\n### Assistant:\n"
    )
    assert stop_token(tiny_tokenizer) == tiny_tokenizer.eos_token_id


def test_chatml_has_no_system_prompt_of_its_own(smollm2_tokenizer):
    size = len(smollm2_tokenizer)
    assert load_template(smollm2_tokenizer, "chatml", WHERE) == {}
    assert len(smollm2_tokenizer) == size
    assert smollm2_tokenizer.apply_chat_template([QUESTION, ANSWER], tokenize=False) == (
        "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n#### 5<|im_end|>\n"
    )
    assert stop_token(smollm2_tokenizer) == smollm2_tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_chatml_gives_the_tokenizer_the_tokens_that_it_lacks(tiny_tokenizer):
    size = len(tiny_tokenizer)
    given = load_template(tiny_tokenizer, "chatml", WHERE, rows=size + 1)
    assert given == {
        "<|im_start|>": f"new token {size}, a spare row of the embeddings",
        "<|im_end|>": f"new token {size + 1}, a new row of the embeddings",
    }
    assert token_ids(tiny_tokenizer, TOKENS) == [[size], [size + 1]]
    assert stop_token(tiny_tokenizer) == size + 1


def test_chatml_adds_no_token_that_is_there(tiny_tokenizer):
    tiny_tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    assert list(load_template(tiny_tokenizer, "chatml", WHERE)) == ["<|im_end|>"]


def test_a_base_models_tokenizer_says_which_tokens_it_was_given(tmp_path):
    folder = save_tiny_model("phi-2", tmp_path)
    spec = BaseModelSpec(repo=str(folder), chat_template="chatml")
    rows = rows_of(folder) or 0
    assert load_tokenizer(spec, folder, WHERE).given_tokens == {  # pyright: ignore[reportAttributeAccessIssue]
        "<|im_start|>": f"new token {rows}, a new row of the embeddings",
        "<|im_end|>": f"new token {rows + 1}, a new row of the embeddings",
    }


def test_a_template_of_ones_own_is_a_file(tiny_tokenizer, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(
        "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    load_template(tiny_tokenizer, str(path), WHERE)
    assert tiny_tokenizer.apply_chat_template([QUESTION], tokenize=False) == "user:What is 2 + 3?</s>"
    found = mistake(tiny_tokenizer, str(tmp_path / "none.jinja"))
    assert "none.jinja' is not a file" in found and "native, chatml, chatml-tools, instruction" in found


def test_marks_of_a_file_whose_answers_end_in_one_become_tokens(tiny_tokenizer, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(
        "{% for m in messages %}<|turn|>{{ m['role'] + ':' + m['content'] }}<|turn_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant:{% endif %}"
    )
    assert list(load_template(tiny_tokenizer, str(path), WHERE)) == ["<|turn|>", "<|turn_end|>"]
    assert stop_token(tiny_tokenizer) == tiny_tokenizer.convert_tokens_to_ids("<|turn_end|>")


@pytest.mark.parametrize("native", [False, True], ids=["a file", "native"])
@pytest.mark.parametrize(
    ("head", "given", "words"),
    [
        ("", "enable_thinking", "template does not read enable_thinking. It reads no argument."),
        ("{% if thinks %}{% endif %}", "think", "does not read think; nearest is thinks. It reads thinks."),
        ("{% set thinks = true %}{{ thinks }}", "thinks", "does not read thinks. It reads no argument."),
        ("{% for m in messages %}{% set said = 1 %}{{ said }}{% endfor %}", "said", "It reads no argument."),
        ("{% macro f(mood) %}{{ mood }}{% endmacro %}{{ f('x') }}", "mood", "It reads no argument."),
        ("{% if b %}{% endif %}{{ a }}{% generation %}{% endgeneration %}", "c", "does not read c. It reads a, b."),
    ],
)
def test_an_argument_that_the_template_does_not_read_is_refused(tiny_tokenizer, tmp_path, native, head, given, words):
    path = tmp_path / "t.jinja"
    path.write_text(head + ZEPHYR)
    tiny_tokenizer.chat_template = head + ZEPHYR
    with pytest.raises(FinetuningError) as error:
        load_template(tiny_tokenizer, "native" if native else str(path), WHERE, template_kwargs={given: False})
    assert str(error.value).startswith("x.yaml: chat.template_kwargs: the chat template does not read ")
    assert words in str(error.value)


@pytest.mark.parametrize(
    "head",
    [
        "{% if thinks is defined and thinks %}{% endif %}",
        "{% if not thinks is defined %}{% set thinks = true %}{% endif %}{{ thinks }}",
        "{% set thinks = thinks | default(true) %}{{ thinks }}",
        "{% macro f(thinks) %}{{ thinks }}{% endmacro %}{{ f(thinks) }}",
        "{% macro f() %}{{ thinks }}{% endmacro %}{{ f() }}",
        "{% for thinks in [1] %}{{ thinks }}{% endfor %}{{ 'x' if thinks else 'y' }}",
        "{% set ns = namespace(on=thinks) %}{{ ns.on }}",
    ],
)
def test_an_argument_is_read_wherever_the_template_has_it(tiny_tokenizer, head):
    tiny_tokenizer.chat_template = head + ZEPHYR
    load_template(tiny_tokenizer, "native", WHERE, template_kwargs={"thinks": False})
    assert tiny_tokenizer.chat_template.startswith("{%- if thinks is not defined %}")


@pytest.mark.parametrize("template", [ZEPHYR, "<|turn|>" + ZEPHYR])
def test_marks_of_a_file_whose_answers_end_in_a_token_stay_text(tiny_tokenizer, tmp_path, template):
    size = len(tiny_tokenizer)
    path = tmp_path / "mine.jinja"
    path.write_text(template)
    assert load_template(tiny_tokenizer, str(path), WHERE) == {}
    assert len(tiny_tokenizer) == size
    assert stop_token(tiny_tokenizer) == tiny_tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m['role'] + ':' + m['content'] + '\n' }}{% endfor %}"
         "{% if add_generation_prompt %}assistant:{% endif %}", r"ends an answer with '', which does not begin"),
        ("{% for m in messages %}{{ m['role'] + ':' + m['content'] + '</s>' }}{% endfor %}", "must follow the prompt"),
        ("{{ raise_exception('No users here') }}", "refuses it: No users here"),
        ("<|turn|>{{ raise_exception('No users here') }}", "refuses it: No users here"),
    ],
)  # fmt: skip
def test_a_template_that_can_not_be_learned_from_is_refused(tiny_tokenizer, tmp_path, template, words):
    (tmp_path / "t.jinja").write_text(template)
    assert words in mistake(tiny_tokenizer, str(tmp_path / "t.jinja"))


def test_a_tokenizer_without_end_of_text_can_not_use_instruction(tiny_tokenizer):
    tiny_tokenizer.eos_token = None
    assert "eos_token is None" in mistake(tiny_tokenizer, "instruction")


ENDLESS = {
    "loops within loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a huge power": "{{ 10 ** 10000000 }}",
    "words without end": "{{ lipsum(100000) }}",
}
HUGE = {
    "a text many times": "{{ 'a' * 1000000000 }}",
    "a padded number": "{{ '%1000000000d' % 1 }}",
    "a padded text": "{{ '{:>1000000000}'.format('a') }}",
    "a deep margin": "{{ messages | tojson(indent=100000000) }}",
    "a text that doubles": "{% set n = namespace(v='a') %}{% for i in range(40) %}{% set n.v = n.v * 2 %}{% endfor %}",
}
LONG = {"a long text": "{{ 'a' * 2000000 }}", "many short ones": "{% for i in range(99999) %}aaaaaaaa{% endfor %}"}
BROKEN = {
    "deep blocks": "{% if true %}" * 500 + "{% endif %}" * 500,
    "deep brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "signs": "{{ " + "-" * 20000 + "1 }}",
    "a macro of itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "another file": "{% include 'x' %}",
    "no syntax": "{% for %}",
    "a reason of its own": "{{ raise_exception('no') }}",
    "a division by zero": "{{ 1 / 0 }}",
}
HOSTILE = {
    **dict.fromkeys(ENDLESS.items(), "did not end within [15] seconds of computing"),
    **dict.fromkeys(HUGE.items(), "takes more than 1 GiB of memory|makes more than 500,000 characters"),
    **dict.fromkeys(LONG.items(), "makes more than 500,000 characters"),
    **dict.fromkeys(BROKEN.items(), "the chat template refuses it"),
}


@pytest.mark.long("templates that are made to take long")
@pytest.mark.parametrize(("template", "told"), HOSTILE.items(), ids=[name for name, _ in HOSTILE])
@pytest.mark.parametrize("native", [False, True], ids=["a file", "native"])
def test_a_template_that_is_not_to_be_run_is_a_clear_error_at_once(
    tiny_tokenizer, tmp_path, monkeypatch, template, told, native
):
    if native and template[0] in ENDLESS:
        monkeypatch.setattr(trial, "SECONDS", 1)
    path = tmp_path / "mine.jinja"
    path.write_text(template[1])
    tiny_tokenizer.chat_template = template[1] if native else None
    before = psutil.Process().memory_info().rss
    with pytest.raises(FinetuningError, match=told) as error:
        load_template(tiny_tokenizer, "native" if native else str(path), WHERE)
    assert str(error.value).startswith("x.yaml: base_model.chat_template: ")
    assert psutil.Process().memory_info().rss < before + (200 << 20)


def test_a_template_that_writes_too_much_for_some_rows_drops_these(tiny_tokenizer):
    tiny_tokenizer.chat_template = "{% for m in messages %}{{ m.content * (m.content | length) }}{% endfor %}"
    assert texts(tiny_tokenizer, [[{"role": "user", "content": "2 + 3?"}]])
    with pytest.raises(RowDropped, match="the chat template makes 4,000,000 characters of 2,"):
        texts(tiny_tokenizer, [[{"role": "user", "content": "a" * 2000}]])
