"""Templates that only write what turns say, and those that look at it."""

import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from finetuning.chat import rendering
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template_analysis import only_writes_contents
from finetuning.dataset.row_faults import RowDropped
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import CHAT_TEMPLATES
from tests.conftest import train_tiny_tokenizer
from tests.finetuning.chat.test_chat_properties import GEMMA, LLAMA_3, PHI_3
from tests.finetuning.chat.test_rendering import MISTRAL
from tests.tiny_models import ZEPHYR

EACH = "{% for message in messages %}BODY{% endfor %}"
WRITING = {
    "shipped chatml": (CHAT_TEMPLATES / "chatml.jinja").read_text(),
    "shipped instruction": (CHAT_TEMPLATES / "instruction.jinja").read_text(),
    "zephyr": ZEPHYR,
    "mistral": MISTRAL,
    "llama-3": LLAMA_3,
    "gemma": GEMMA,
    "phi-3": PHI_3,
    "by attribute": EACH.replace("BODY", "{{ message.role ~ message.content }}"),
    "a part of the turns": "{{ messages[0]['content'] }}{% for m in messages[1:] %}{{ m['content'] }}{% endfor %}",
    "backwards": "{% for m in messages[::-1] %}{{ m.content | trim }}{% endfor %}",
    "chosen by role": EACH.replace("BODY", "{{ message.content if message.role == 'user' else 'x' }}"),
    "counted": "{{ messages | length }}" + EACH.replace("BODY", "{{ loop.index }}{{ message.content }}"),
    "the last role": "{% if messages[-1]['role'] == 'user' %}!{% endif %}",
    "no turns": "nothing",
}
LOOKING = [
    "{% if 'x' in message['content'] %}y{% endif %}",
    "{% if message.content == 'x' %}y{% endif %}",
    "{% if message.content %}y{% endif %}",
    "{{ message.content | length }}",
    "{{ message.content | upper }}",
    "{{ message.content | replace('a', 'b') }}",
    "{{ (message.content | trim)[:3] }}",
    "{{ message.content[0] }}",
    "{{ message.content.strip() }}",
    "{{ message.content.split('</think>')[-1] }}",
    "{{ message.content * 2 }}",
    "{{ '%s' % message.content }}",
    "{{ message.content if message.content else 'x' }}",
    "{{ message.content or 'x' }}",
    "{{ message }}",
    "{{ message | tojson }}",
    "{{ message['con' ~ 'tent'] | length }}",
    "{{ message.get('content') }}",
    "{% set said = message.content %}{{ said | length }}",
    "{% set said = message %}{{ said.content | length }}",
    "{% set whole = namespace(said=message.content) %}{{ whole.said | length }}",
    "{% for letter in message.content %}{{ letter }}-{% endfor %}",
    "{% for key in message %}{{ message[key] | length }}{% endfor %}",
    "{% for key, value in message.items() %}{{ value | length }}{% endfor %}",
    "{% filter upper %}{{ message.content }}{% endfilter %}",
    "{% set said %}{{ message.content }}{% endset %}{{ said | length }}",
    "{% macro say(m) %}{{ m.content | length }}{% endmacro %}{{ say(message) }}",
    "{% if message is mapping %}x{% endif %}",
    "{% if message.content is string %}x{% endif %}",
    "{{ range(message.content | length) | join }}",
    "{% if message in messages[1:] %}x{% endif %}",
    "{% if loop.previtem is defined and loop.previtem.content == message.content %}x{% endif %}",
    "{{ loop.previtem }}",
    "{{ loop.nextitem }}",
    "{% for other in messages if other.content == 'x' %}x{% endfor %}",
    "{{ {'x': 1}[message.content] }}",
    "{% include message.content %}",
    "{% generation %}{{ message.content }}{% endgeneration %}",
    "{% if %}",
]
# Whole turns that are compared or written, and `trim` of something else than white space.
LOOKING_AT_TURNS = [
    "{% if messages[0] == messages[2] %}x{% endif %}",
    "{% if messages[0] in messages[1:] %}x{% endif %}",
    "{{ messages[0] }}",
    "{{ messages[0] ~ '' }}",
    "{{ messages[1:] }}",
    "{% set first = messages[0] %}{{ first }}",
    "{% set rest = messages[1:] %}{{ rest }}",
    "{% set held = namespace(first=messages[0]) %}{{ held.first }}",
    "{{ messages[0]['content'] | trim('#') }}",
    "{{ messages[0]['content'] | trim(chars='#') }}",
]


@pytest.mark.parametrize("name", WRITING)
def test_a_template_that_writes_turns_as_they_are_is_relied_on(name):
    assert only_writes_contents(WRITING[name])


def test_that_of_smollm2_is_relied_on(smollm2_tokenizer):
    assert only_writes_contents(smollm2_tokenizer.chat_template)


@pytest.mark.parametrize("body", LOOKING)
def test_a_template_that_looks_at_what_a_turn_says_is_not_relied_on(body):
    assert not only_writes_contents(EACH.replace("BODY", body))


@pytest.mark.parametrize("template", LOOKING_AT_TURNS)
def test_a_template_that_looks_at_turns_as_a_whole_is_not_relied_on(template):
    assert not only_writes_contents(template)


EXPRESSIONS = st.sampled_from(
    [
        "message['content']", "message.content", "message['content'] | trim", "message['role']", "'%'", "'text '",
        "messages[0]['content']", "messages[-1].content", "loop.index0", "bos_token", "messages | length",
        "(message.content if loop.first else message['content'] | trim)", "message.content | upper",
        "message.content | length", "messages[0]", "message.content | trim('a')", "message.content | trim ~ '\n'",
    ]
)  # fmt: skip
CONDITIONS = st.sampled_from(
    [
        "loop.first", "loop.last", "message['role'] == 'user'", "'a' in message.content", "messages[0] == message",
        "messages[0] == messages[-1]", "messages | length > 2", "message.content", "loop.index0 % 2",
    ]
)  # fmt: skip


@st.composite
def templates(draw) -> str:
    """A template that ends an answer as it should, and does something odd before that."""
    odd = draw(st.lists(EXPRESSIONS, min_size=1, max_size=3))
    body = "".join(f"{{{{ {expression} }}}}" for expression in odd)
    if draw(st.booleans()):
        body = f"{{% if {draw(CONDITIONS)} %}}{body}{{% endif %}}"
    head = "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    said = draw(st.sampled_from(["{{ message.content }}", "{{ message.content | trim }}"]))
    return f"{head}{said}{{{{ eos_token }}}}{{% else %}}{{{{ message.content }}}}[{body}]{{% endif %}}{{% endfor %}}"


ANSWER_BEFORE_ITSELF = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{{ message.content }}{{ eos_token }}"
    "{% else %}{{ message.content }}[{% if 'a' in message.content %}{{ messages[-1].content }}{% endif %}]{% endif %}"
    "{% endfor %}"
)
TEXT = st.text("ab #%\n{}é", min_size=1, max_size=6).filter(str.strip)


@pytest.fixture(scope="module")
def tokenizer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "COMPARED", 3)
        yield train_tiny_tokenizer()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@example(template=ANSWER_BEFORE_ITSELF, contents=[("a", "a")] * 5)
@given(template=templates(), contents=st.lists(st.tuples(TEXT, TEXT), min_size=5, max_size=5))
def test_what_is_laid_out_is_the_templates_prompt_and_answer(tokenizer, template, contents):
    tokenizer.chat_template = template
    conversations = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in [("a", "b")] * 3 + contents
    ]
    try:
        renderer = Renderer(tokenizer)
        found = [renderer.lay_out([Conversation(messages)])[0] for messages in conversations]
    except FinetuningError:
        reject()  # prompt and answer cannot be told apart, and it says so
    for messages, laid_out in zip(conversations, found, strict=True):
        if isinstance(laid_out, RowDropped):
            continue
        prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        answer = messages[1]["content"]
        # A template that changes the question once it is answered: the answer follows the prompt as it was.
        assert laid_out.text.startswith(prompt)
        if whole.startswith(prompt):
            assert laid_out.text == whole
        assert laid_out.text.removeprefix(prompt).removesuffix(tokenizer.eos_token) in (answer, answer.strip())
