"""Properties of any conversation under the kinds of chat template and tokenizer that are in use."""

import re
from itertools import chain
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import AddedToken, PreTrainedTokenizerFast

from finetuning.chat import rendering
from finetuning.chat.layouts import LaidOut
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import load_template
from finetuning.tokens import NOT_SUPERVISED
from tests.conftest import train_tiny_tokenizer
from tests.finetuning.chat.test_rendering import MISTRAL, space_first_tokenizer
from tests.tiny_models import ZEPHYR

LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = 'user' %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI_3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# What the added tokens of Phi-3 do: white space behind one belongs to it.
TAKES_SPACE = re.compile(r"(<\|(?:system|user|assistant|end)\|>)\s+")


class Family(NamedTuple):
    """A tokenizer with its chat template."""

    tokenizer: PreTrainedTokenizerFast
    has_system: bool = True
    is_spaced: bool = False
    """Whether the tokenizer puts spaces where the text has none."""

    @property
    def control(self) -> dict[str, int]:
        """The texts and ids of control tokens."""
        return {token.content: number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    def seen(self, text: str) -> str:
        """The text without the space that is lost between text and tokens, or made there."""
        if self.is_spaced:
            return "".join(text.split())
        return TAKES_SPACE.sub(r"\1", text) if self.tokenizer.chat_template == PHI_3 else text

    def knows(self, text: str) -> bool:
        """Whether the vocabulary has the bytes that the text is made of."""
        ids = [token for byte in text for token in self.tokenizer.backend_tokenizer.encode(byte).ids]
        return self.is_spaced or self.tokenizer.decode(ids) == text

    def decoded(self, ids: list[int]) -> str:
        """The text of tokens."""
        return self.seen(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def whole(self, messages, **keys) -> list[int]:
        """What the tokenizer itself makes of a conversation."""
        return self.tokenizer.apply_chat_template(messages, tokenize=True, **keys)["input_ids"]

    def text(self, messages, **keys) -> str:
        """What the template itself makes of a conversation."""
        return self.tokenizer.apply_chat_template(messages, tokenize=False, **keys)


def tiny(template: str, *tokens: str, takes_space: bool = False, stop: str = "</s>") -> PreTrainedTokenizerFast:
    """A tiny tokenizer with that template and those control tokens."""
    tokenizer = train_tiny_tokenizer()
    added = [AddedToken(token, special=True, normalized=False, rstrip=takes_space) for token in tokens]
    tokenizer.add_special_tokens({"extra_special_tokens": added, "eos_token": stop})
    tokenizer.chat_template = template
    return tokenizer


def instruction() -> PreTrainedTokenizerFast:
    tokenizer = train_tiny_tokenizer()
    load_template(tokenizer, "instruction", "recipes/x.yaml")
    return tokenizer


def mistral() -> PreTrainedTokenizerFast:
    tokenizer = space_first_tokenizer(legacy=False)
    tokenizer.chat_template = MISTRAL
    return tokenizer


MADE = {
    "instruction": lambda: Family(instruction()),
    "zephyr": lambda: Family(tiny(ZEPHYR)),
    "mistral": lambda: Family(mistral(), has_system=False, is_spaced=True),
    "llama-3": lambda: Family(tiny(LLAMA_3, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "gemma": lambda: Family(tiny(GEMMA, "<start_of_turn>", "<end_of_turn>"), has_system=False),
    "phi-3": lambda: Family(tiny(PHI_3, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", takes_space=True)),
}
SPELLED_OUT = [
    "</s>", "<s>", "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<end_of_turn>", "<start_of_turn>", "<|end|>",
    "<|user|>", "<|assistant|>", "<pad>", "<unk>", "[INST]", "### Assistant:\n", "%s", "{{ x }}", "\ue000turn 0\ue001",
]  # fmt: skip
ANY_TEXT = st.lists(st.one_of(st.text(min_size=1), st.sampled_from(SPELLED_OUT)), min_size=1, max_size=4).map("".join)
# Text whose first and last characters merge with nothing that a template writes beside them.
TAME_TEXT = st.from_regex(r"[a-y]([a-z0-9 .?]*[a-y])?", fullmatch=True)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=["smollm2", *MADE])
def family(request) -> Family:
    if request.param == "smollm2":
        return Family(request.getfixturevalue("_smollm2"))
    return MADE[request.param]()


@pytest.fixture(scope="module")
def renderer(family):
    """The family's, which relies on a layout after two conversations instead of a hundred."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "COMPARED", 2)
        yield Renderer(family.tokenizer)


def messages_of(draw, family: Family, texts) -> list[dict[str, str]]:
    said = texts.filter(str.strip)
    turns = draw(st.lists(st.tuples(said, said), min_size=1, max_size=3))
    system = draw(st.one_of(st.none(), said)) if family.has_system else None
    messages = [{"role": "system", "content": system}] if system else []
    # SmolLM2's vocabulary lacks some bytes that are in no ordinary text; they are lost whoever renders.
    assume(all(family.knows(text) for text in [*chain(*turns), system or ""]))
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def tokens_of(renderer: Renderer, messages) -> tuple[list[int], list[int], LaidOut]:
    (laid_out,) = renderer.lay_out([Conversation(messages)])
    assert isinstance(laid_out, LaidOut), laid_out
    tokens = renderer.tokenize([laid_out])
    return tokens.ids.tolist(), tokens.labels.tolist(), laid_out


def bounds(labels: list[int]) -> list[tuple[int, int]]:
    """First token and end of each run of supervised tokens."""
    is_learned = [False, *(label != NOT_SUPERVISED for label in labels), False]
    changes = [i for i in range(len(labels) + 1) if is_learned[i] != is_learned[i + 1]]
    return list(zip(changes[::2], changes[1::2], strict=True))


def answers(family: Family, messages) -> list[tuple[str, str]]:
    """For each answer what the template writes before it, and up to the end of its stop token."""
    found, stop = [], stop_of(family)
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            whole = family.text(messages[: i + 1])
            before = family.text(messages[:i], add_generation_prompt=True)
            found.append((before, whole[: whole.rindex(stop) + len(stop)]))
    return found


def stop_of(family: Family) -> str:
    after = family.text([{"role": "user", "content": "q"}, {"role": "assistant", "content": "MARK"}]).split("MARK")[1]
    return max((token for token in family.control if after.startswith(token)), key=len)


@FEW
@given(st.data())
def test_exactly_the_answers_and_their_stop_tokens_are_learned(family, renderer, data):
    messages = messages_of(data.draw, family, ANY_TEXT)
    ids, labels, _ = tokens_of(renderer, messages)
    assert all(label in (token, NOT_SUPERVISED) for token, label in zip(ids, labels, strict=True))
    found = [(family.decoded(ids[:start]), family.decoded(ids[:end])) for start, end in bounds(labels)]
    assert found == [(family.seen(before), family.seen(until)) for before, until in answers(family, messages)]


@FEW
@given(st.data())
def test_the_tokens_are_those_that_the_tokenizer_makes_of_each_prefix(family, renderer, data):
    messages = messages_of(data.draw, family, TAME_TEXT)
    ids, labels, _ = tokens_of(renderer, messages)
    stop = family.control[stop_of(family)]
    expected = [NOT_SUPERVISED] * len(ids)
    for i in [i for i, message in enumerate(messages) if message["role"] == "assistant"]:
        prompt = family.whole(messages[:i], add_generation_prompt=True)
        whole = family.whole(messages[: i + 1])
        end = len(whole) - whole[::-1].index(stop)
        expected[len(prompt) : end] = whole[len(prompt) : end]
        assert ids[: len(whole)] == whole and whole[: len(prompt)] == prompt
        assert renderer.prompt(Conversation(messages[:i])) == prompt
    assert labels == expected


@FEW
@given(st.data())
def test_no_text_becomes_a_control_token_and_none_is_lost(family, renderer, data):
    messages = messages_of(data.draw, family, ANY_TEXT)
    ids, _, laid_out = tokens_of(renderer, messages)
    plain, _, _ = tokens_of(renderer, [message | {"content": "x"} for message in messages])
    control = set(family.control.values())
    assert [token for token in ids if token in control] == [token for token in plain if token in control]
    text = family.text(messages)
    assert family.decoded(ids) == family.seen(text)
    assert family.seen(laid_out.text) == family.seen(text)
    said = family.seen("".join(message["content"].strip() for message in messages))
    assert family.is_spaced or len(family.decoded(ids)) >= len(said)


@FEW
@given(st.data())
def test_the_prompt_of_each_answer_is_what_precedes_it_in_training(family, renderer, data):
    messages = messages_of(data.draw, family, ANY_TEXT)
    ids, labels, _ = tokens_of(renderer, messages)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    for turn, (start, _) in zip(turns, bounds(labels), strict=True):
        assert renderer.prompt(Conversation(messages[:turn])) == ids[:start]


@FEW
@given(st.data())
def test_conversations_are_tokenized_together_as_they_are_alone(family, renderer, data):
    several = [messages_of(data.draw, family, ANY_TEXT) for _ in range(3)]
    together = renderer.tokenize(renderer.lay_out([Conversation(messages) for messages in several]))
    for row, messages in enumerate(several):
        ids, labels, _ = tokens_of(renderer, messages)
        assert (together.of(row).ids.tolist(), together.of(row).labels.tolist()) == (ids, labels)
