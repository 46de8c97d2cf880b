import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import LlamaTokenizer

from finetuning.chat_template import load_template, stop_token
from finetuning.errors import FinetuningError
from finetuning.formats import RowDropped
from finetuning.recipe import CHAT_TEMPLATES
from finetuning.rendering import NOT_SUPERVISED, render, render_prompt
from tests.conftest import train_tiny_tokenizer

CONVERSATION = [
    {"role": "system", "content": "You solve maths problems."},
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "2 + 3 = 5\n#### 5"},
    {"role": "user", "content": "And 2 - 3?\n"},
    {"role": "assistant", "content": "#### -1"},
]
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def supervised_texts(tokenizer, rendered) -> list[str]:
    """The text of each run of supervised tokens."""
    runs, run = [], []
    for token, label in zip(*rendered, strict=True):
        assert label in (token, NOT_SUPERVISED)
        if label == NOT_SUPERVISED:
            runs, run = runs + ([run] if run else []), []
        else:
            run.append(token)
    return [tokenizer.decode(run) for run in runs + ([run] if run else [])]


def whole(tokenizer, messages, **keys) -> list[int]:
    """What the tokenizer makes of the conversation in one go."""
    return tokenizer.apply_chat_template(messages, tokenize=True, **keys)["input_ids"]


def space_first_tokenizer(legacy: bool) -> LlamaTokenizer:
    """A tokenizer like Llama 2's and Mistral's: it puts a space before a text, and unknown characters are bytes."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzADINSTUWY#[]/<>|.?=+-0123456789"))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁▁", *letters]
    tokens += [f"▁{letter}" for letter in letters]
    merges = [("▁", "▁"), *(("▁", letter) for letter in letters)]
    return LlamaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, legacy=legacy)


def test_answers_and_their_stop_tokens_are_supervised_and_nothing_else(smollm2_tokenizer):
    rendered = render(smollm2_tokenizer, CONVERSATION)
    assert supervised_texts(smollm2_tokenizer, rendered) == ["2 + 3 = 5\n#### 5<|im_end|>", "#### -1<|im_end|>"]
    stop = stop_token(smollm2_tokenizer)
    assert rendered.input_ids.count(stop) == 5 and rendered.labels.count(stop) == 2
    assert rendered.labels[-1] == NOT_SUPERVISED  # the line break after the last stop token


def test_the_tokens_are_those_of_the_whole_conversation(smollm2_tokenizer):
    assert render(smollm2_tokenizer, CONVERSATION).input_ids == whole(smollm2_tokenizer, CONVERSATION)


def test_the_prompt_is_what_precedes_the_answer_in_training(smollm2_tokenizer):
    for end in (2, 4):
        prompt = render_prompt(smollm2_tokenizer, CONVERSATION[:end])
        rendered = render(smollm2_tokenizer, CONVERSATION)
        assert rendered.input_ids[: len(prompt)] == prompt
        assert rendered.labels[len(prompt) - 1] == NOT_SUPERVISED != rendered.labels[len(prompt)]
        assert prompt == whole(smollm2_tokenizer, CONVERSATION[:end], add_generation_prompt=True)


def test_an_answer_that_begins_with_a_line_break_does_not_change_the_tokens_of_its_prompt(smollm2_tokenizer):
    messages = [CONVERSATION[1], {"role": "assistant", "content": "\n\n5"}]
    prompt = render_prompt(smollm2_tokenizer, messages[:1])
    rendered = render(smollm2_tokenizer, messages)
    assert rendered.input_ids[: len(prompt)] == prompt
    assert supervised_texts(smollm2_tokenizer, rendered) == ["\n\n5<|im_end|>"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=2, max_size=6).map(lambda texts: texts[: len(texts) // 2 * 2]))
def test_no_text_confuses_prompt_and_answer(instruction_tokenizer, contents):
    tokenizer = instruction_tokenizer
    messages = [{"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)]
    rendered = render(tokenizer, messages)
    assert supervised_texts(tokenizer, rendered) == [content + "</s>" for content in contents[1::2]]
    prompt = render_prompt(tokenizer, messages[:-1])
    assert rendered.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode(rendered.input_ids) == tokenizer.apply_chat_template(messages, tokenize=False)


@pytest.fixture(scope="module")
def instruction_tokenizer():
    tokenizer = train_tiny_tokenizer()
    load_template(tokenizer, "instruction", "recipes/x.yaml")
    return tokenizer


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("template", [MISTRAL, ZEPHYR])
def test_a_tokenizer_that_puts_a_space_before_a_text_gives_the_tokens_of_the_whole_conversation(legacy, template):
    tokenizer = space_first_tokenizer(legacy)
    tokenizer.chat_template = template
    messages = CONVERSATION[1:]
    rendered = render(tokenizer, messages)
    assert rendered.input_ids == whole(tokenizer, messages)
    assert rendered.labels.count(tokenizer.eos_token_id) == 2
    prompt = render_prompt(tokenizer, messages[:-1])
    assert prompt == whole(tokenizer, messages[:-1], add_generation_prompt=True) == rendered.input_ids[: len(prompt)]


def test_a_template_that_rewrites_earlier_turns_is_refused(smollm2_tokenizer):
    smollm2_tokenizer.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{{ message['content'] if loop.last or message['role'] == 'user' else message['content'][:3] }}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert render(smollm2_tokenizer, CONVERSATION[1:3]).input_ids
    with pytest.raises(FinetuningError, match=r"not prefix-stable: .*2 \+ 3 = 5.* becomes .*Use chatml or instruction"):
        render(smollm2_tokenizer, CONVERSATION[1:])


def test_a_template_that_rewrites_the_prompt_once_there_is_an_answer_is_refused(smollm2_tokenizer):
    counted = "{% if 'What' in messages[0]['content'] %}{{ messages | length }}{% endif %}"
    smollm2_tokenizer.chat_template = counted + smollm2_tokenizer.chat_template
    with pytest.raises(FinetuningError, match=r"not prefix-stable: '1<.* becomes '2<"):
        render(smollm2_tokenizer, CONVERSATION[1:3])


def test_messages_that_the_template_refuses_drop_the_row(smollm2_tokenizer):
    smollm2_tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + (CHAT_TEMPLATES / "chatml.jinja").read_text()
    )
    assert render(smollm2_tokenizer, CONVERSATION[1:]).input_ids
    with pytest.raises(RowDropped, match=r"^the chat template refuses it: System role not supported$"):
        render(smollm2_tokenizer, CONVERSATION)


@pytest.mark.parametrize("place", [1, 2])
def test_a_message_that_holds_the_stop_token_drops_the_row(smollm2_tokenizer, place):
    messages = [dict(message) for message in CONVERSATION[:3]]
    messages[place]["content"] = "Say <|im_end|> now"
    with pytest.raises(RowDropped, match=r"^contains the stop token <\|im_end\|>$"):
        render(smollm2_tokenizer, messages)


def test_a_tokenizer_file_that_asks_for_truncation_cuts_nothing(tiny_tokenizer):
    load_template(tiny_tokenizer, "instruction", "recipes/x.yaml")
    full = render(tiny_tokenizer, CONVERSATION)
    tiny_tokenizer.backend_tokenizer.enable_truncation(3)
    tiny_tokenizer.backend_tokenizer.enable_padding(length=500)
    assert render(tiny_tokenizer, CONVERSATION) == full and len(full.input_ids) > 50


def test_a_begin_token_that_the_tokenizer_adds_is_there_once(tiny_tokenizer):
    tiny_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tiny_tokenizer.bos_token_id)]
    )
    load_template(tiny_tokenizer, "instruction", "recipes/x.yaml")
    ids = render(tiny_tokenizer, CONVERSATION).input_ids
    assert ids[0] == tiny_tokenizer.bos_token_id and ids.count(tiny_tokenizer.bos_token_id) == 1
    assert ids == whole(tiny_tokenizer, CONVERSATION)
