"""A template that behaves in a trial and not with real rows ends all the same, with an error that says so."""

import resource
import signal

import pytest

from finetuning.chat import trial
from finetuning.chat.template import texts
from finetuning.errors import FinetuningError

LOOPS = "{% for x in range(99999) %}" * 3 + "{% endfor %}" * 3
DOUBLES = "{% set n = namespace(s='x' * 1000) %}{% for x in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
TEMPLATE = "{%% if %s %%}%s{%% endif %%}{%% for m in messages %%}{{ m.content }}</s>{%% endfor %%}"
PLAIN = [{"role": "user", "content": "hello"}]
TURNS = [{"role": "user", "content": "a magic word"}, {"role": "assistant", "content": "yes"}] * 5


@pytest.mark.parametrize("condition", ["messages|length > 9", "'magic' in messages[0].content"])
@pytest.mark.parametrize(("does", "told"), [(LOOPS, "did not end within"), (DOUBLES, "GiB of memory")])
def test_what_a_template_does_with_some_rows_alone_is_bound_as_well(tiny_tokenizer, monkeypatch, condition, does, told):
    # Where memory is to run out, no slow machine runs out of time before it.
    monkeypatch.setattr(trial, "ROWS_SECONDS", 0.5 if does == LOOPS else 60)
    monkeypatch.setattr(trial, "INTERVAL", 0.1)
    monkeypatch.setattr(trial, "ROWS_MEMORY", 1 << 29)
    monkeypatch.setattr(tiny_tokenizer, "chat_template", TEMPLATE % (condition, does))
    before = signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)
    assert texts(tiny_tokenizer, [PLAIN]) == ["hello</s>"]
    with pytest.raises(FinetuningError, match=rf"the chat template .*{told}.*write base_model\.chat_template"):
        texts(tiny_tokenizer, [TURNS])
    assert texts(tiny_tokenizer, [PLAIN]) == ["hello</s>"]
    assert (signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)) == before
