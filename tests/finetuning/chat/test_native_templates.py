"""What people bring: the chat templates of today's models, and conversations with tools and reasoning."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from transformers import AutoTokenizer

from finetuning.chat.abilities import NO_REASONING, as_the_template_takes_them
from finetuning.chat.layouts import LaidOut
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import before_answer, load_template, stop_token
from finetuning.dataset.row_faults import RowDropped
from finetuning.evaluation.generation import answer_of
from finetuning.tokens import ANSWER
from tests.template_matrix import (
    BEGIN,
    END,
    KINDS,
    PAGE,
    TEMPLATES,
    TOOLS,
    assistant,
    call,
    laid_out,
    names,
    renderer_of,
    result,
    table,
    tokenizer_with,
    user,
)

# As Mistral's: the tools stand at the last question.
MISTRAL_TOOLS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set rest = messages[loop.index:] | selectattr('role', 'equalto', 'user') | list %}"
    "{% if tools and not rest %}{{ '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{{ '[INST] ' + m.content + '[/INST]' }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}"
    "{% elif m.tool_calls %}{{ '[TOOL_CALLS]' + m.tool_calls | tojson + eos_token }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


def _calling(first: dict, last: dict) -> Conversation:
    turns = [assistant(first.pop("content", ""), tool_calls=[call(1, 2)], **first), result(1, "5")]
    return Conversation([user("2 + 3?"), *turns, assistant("It is 5.", **last)], TOOLS)


CALLING = {
    "text beside a call": _calling({"content": "Let me see."}, {}),
    "thought before a call": _calling({"reasoning_content": "First."}, {}),
    "thought before a call, and after it": _calling({"reasoning_content": "First."}, {"reasoning_content": "Then."}),
}
CALLING["two questions"] = Conversation(
    [
        *CALLING["thought before a call, and after it"].messages,
        *(user("4 + 3?"), assistant("", tool_calls=[call(2, 4)], reasoning_content="Again."), result(2, "7")),
        assistant("That is 7.", reasoning_content="Done."),
    ],
    TOOLS,
)


def renderer_with(template: str, chat_template: str = "native", learn_reasoning: bool = True, **kwargs) -> Renderer:
    tokenizer = tokenizer_with(template)
    load_template(tokenizer, chat_template, "x.yaml", None, kwargs)
    return Renderer(tokenizer, learn_reasoning)


def trl_template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def learned(renderer: Renderer, conversation: Conversation) -> list[str]:
    """What is learned in each row of a conversation."""
    (found,) = renderer.lay_out([conversation])
    assert isinstance(found, LaidOut), found
    texts = []
    for one in (*found.earlier, found):
        tokens = renderer.tokenize([one])
        texts.append(str(renderer.tokenizer.decode(tokens.ids[tokens.kinds == ANSWER])))
    return texts


def answers_in(renderer: Renderer, found: LaidOut) -> Iterator[tuple[str, str]]:
    """What is learned in the rows of a conversation, answer by answer, each behind all that precedes it."""
    for one in (*found.earlier, found):
        tokens = renderer.tokenize([one])
        edges = np.flatnonzero(np.diff(np.r_[False, tokens.kinds == ANSWER, False]))
        for start, end in edges.reshape(-1, 2):
            yield tuple(str(renderer.tokenizer.decode(ids)) for ids in (tokens.ids[:start], tokens.ids[start:end]))


def test_the_docs_show_what_each_template_takes():
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == table().strip()


@pytest.mark.parametrize("name", names())
def test_what_the_exam_asks_with_precedes_the_answer_in_training(name):
    for kind, conversation in KINDS.items():
        found = laid_out(name, kind)
        if not isinstance(found, LaidOut):
            continue
        renderer = renderer_of(name)
        assert isinstance(renderer, Renderer)
        tokens = renderer.tokenize([found])
        prompt = renderer.prompt(conversation._replace(messages=conversation.messages[:-1]))
        assert tokens.ids[: len(prompt)].tolist() == prompt and (tokens.kinds[: len(prompt)][-1:] != ANSWER).all()
        text = renderer.tokenizer.apply_chat_template(
            conversation.messages[:-1], tools=conversation.tools, add_generation_prompt=True, tokenize=False
        )
        assert found.text.startswith(str(text))
        assert (tokens.kinds[len(prompt) :] == ANSWER)[0] and conversation.messages[-1]["content"] in found.text


@pytest.mark.parametrize("name", names())
def test_each_answer_beside_a_call_is_learned_once_and_behind_its_own_prompt(name):
    for kind, conversation in CALLING.items():
        renderer = renderer_of(name)
        (found,) = renderer.lay_out([conversation]) if isinstance(renderer, Renderer) else [renderer]
        if not isinstance(found, LaidOut):
            continue
        messages = as_the_template_takes_them(conversation.messages, renderer.abilities)
        prompts = {
            turn: renderer.tokenizer.apply_chat_template(
                messages[:turn], tools=conversation.tools, add_generation_prompt=True, tokenize=False
            )
            for turn, message in enumerate(messages)
            if message["role"] == "assistant"
        }
        learned_at = []
        for before, said in answers_in(renderer, found):
            (turn,) = (turn for turn, prompt in prompts.items() if before == prompt)
            learned_at.append(turn)
            message = conversation.messages[turn]
            assert message["content"] in said and message.get("reasoning_content", "") in said
            assert all(call["function"]["name"] in said for call in message.get("tool_calls", ())), kind
        assert sorted(learned_at) == list(prompts), kind


def test_what_a_template_drops_once_the_answer_is_there_stays_in_the_prompt_of_that_answer():
    for kind, begin in (("thought before a call", "First."), ("text beside a call", "Let me see.")):
        (found,) = renderer_of("gptoss").lay_out([CALLING[kind]])
        assert isinstance(found, LaidOut) and not found.earlier
        (first, last) = answers_in(renderer_of("gptoss"), found)
        assert first[1].startswith(f"<|channel|>analysis<|message|>{begin}<|end|><|start|>assistant to=functions.add")
        assert begin in last[0] and last[1].endswith("<|channel|>final<|message|>It is 5.<|return|>")
    (text,) = learned(renderer_of("gptoss"), CALLING["thought before a call, and after it"])
    assert text.endswith(
        "<|channel|>analysis<|message|>Then.<|end|><|start|>assistant<|channel|>final<|message|>It is 5.<|return|>"
    )
    assert learned(renderer_of("gemma4_v5"), CALLING["text beside a call"])[1] == "It is 5.<turn|>"


@pytest.mark.parametrize("template", ["deepseek_r1_distill", "qwen3", "glm4moe", "chatml-tools"])
def test_a_thought_whose_opening_tag_stands_in_the_prompt_is_read(template):
    shipped = template == "chatml-tools"
    renderer = renderer_with("", template) if shipped else renderer_with(trl_template(template))
    for said in ("I count on.\n</think>\n\nIt is 5.", "I count on.</think>It is 5."):
        with_tag, without = (Conversation([user("2 + 3?"), assistant(text)]) for text in ("<think>\n" + said, said))
        assert learned(renderer, without) == learned(renderer, with_tag)
        assert "I count on." in learned(renderer, without)[0]


def test_a_closing_tag_without_a_place_for_thoughts_is_text():
    said = "I count on.</think>It is 5."
    assert learned(renderer_with("", "chatml"), Conversation([user("2 + 3?"), assistant(said)])) == [
        said + "<|im_end|>"
    ]


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1_distill", "gptoss"])
def test_two_thoughts_before_one_answer_are_a_fault_and_the_same_one_twice_is_none(name):
    renderer = renderer_with(trl_template(name))
    for content in ("<think>\nI add.\n</think>\n\nIt is 5.", "I add.</think>It is 5."):
        (found,) = renderer.lay_out(
            [Conversation([user("2 + 3?"), assistant(content, reasoning_content="I count on.")])]
        )
        assert str(found).startswith("a thought in reasoning_content and another one in the text (")
    once, twice = (
        Conversation([user("2 + 3?"), assistant(text, reasoning_content="I add.")])
        for text in ("It is 5.", "<think>\nI add.\n</think>\n\nIt is 5.")
    )
    assert learned(renderer, once) == learned(renderer, twice)


@pytest.mark.parametrize("name", ["cohere", "gemma", "gemma3", "phi3", "llama3"])
@pytest.mark.parametrize("kind", ["tools", "parallel calls", "calls alone"])
def test_a_template_without_tools_says_that_it_has_none(name, kind):
    conversation = KINDS.get(kind) or KINDS["tools"]._replace(tools=None)
    (found,) = renderer_with(trl_template(name)).lay_out([conversation])
    assert str(found) == "the chat template has no tools (base_model.chat_template: chatml-tools writes them)"


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3", "chatml-tools"])
def test_tools_that_the_system_turn_spells_out_as_well_are_a_fault(template):
    shipped = template == "chatml-tools"
    renderer = renderer_with("", template) if shipped else renderer_with(trl_template(template))
    system = {"role": "system", "content": f"You call functions. <tools> {json.dumps(TOOLS)} </tools>"}
    told = Conversation([system, *KINDS["tools"].messages], TOOLS)
    (found,) = renderer.lay_out([told])
    assert str(found).startswith("the tools stand in the system turn (<tools>) and in the column tools")
    assert "ignore: [tools]" in str(found)
    plain = told._replace(messages=[system, *KINDS["plain"].messages], tools=None)
    named = Conversation([{"role": "system", "content": "Use the <tools>."}, *KINDS["tools"].messages], TOOLS)
    assert all(isinstance(found, LaidOut) for found in renderer.lay_out([plain, named]))


def test_a_call_that_a_template_begins_otherwise_than_its_prompt_says_what_to_use():
    messages = [*CALLING["thought before a call"].messages[:-1], assistant("", tool_calls=[call(2, 4)])]
    for message in messages:
        message.pop("reasoning_content", None)
    (found,) = renderer_of("deepseekv3").lay_out([Conversation(messages)])
    assert str(found).startswith("the chat template does not write this answer as what follows its prompt (")
    assert "chatml-tools" in str(found)


@pytest.mark.parametrize(
    ("between", "asked"), [([], "<｜tool▁outputs▁end｜>"), ([assistant("It is 5."), user("4 + 3?")], "<｜Assistant｜>")]
)
def test_a_second_call_that_is_written_as_part_of_the_first_is_told_by_its_marks(between, asked):
    first = [user("2 + 3?"), assistant("", tool_calls=[call(1, 2)]), result(1, "5")]
    second = [assistant("", tool_calls=[call(2, 4)]), result(2, "7"), assistant("That is 7.")]
    alone, both = renderer_of("deepseekv3").lay_out(
        [Conversation([*first, assistant("It is 5.")]), Conversation([*first, *between, *second])]
    )
    assert isinstance(alone, LaidOut) and isinstance(both, RowDropped)
    assert f"a second call of tools with <｜tool▁call▁begin｜> where its prompt has {asked}: end the row" in str(both)
    assert both.field == f"turn {3 + len(between)}"


def test_the_date_is_the_same_on_any_day_and_where_the_tokenizer_is_published(tmp_path):
    renderer = renderer_with(trl_template("llama3_2"))
    renderer.tokenizer.save_pretrained(tmp_path)
    published = AutoTokenizer.from_pretrained(tmp_path)
    messages = [user("2 + 3?")]
    text = str(published.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    assert "Today Date: 26 Jul 2024" in text
    ids = published.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert renderer.prompt(Conversation(messages)) == ids


def test_arguments_of_a_template_are_its_defaults_wherever_it_is_used():
    renderer = renderer_with(trl_template("qwen3"), enable_thinking=False)
    text = renderer.tokenizer.apply_chat_template([user("2?")], add_generation_prompt=True, tokenize=False)
    assert str(text).endswith("<think>\n\n</think>\n\n")
    assert learned(renderer, KINDS["plain"]) == ["It is 5.<|im_end|>"]
    (found,) = renderer.lay_out([KINDS["reasoning"]])
    assert isinstance(found, RowDropped) and "enable_thinking: true" in str(found)


def test_labels_are_on_what_the_model_has_to_say_after_its_prompt():
    think = "<think>\n\n</think>\n\n"
    assert learned(renderer_with(trl_template("qwen3")), KINDS["multi-turn"]) == [
        f"{think}{text}<|im_end|>" for text in ("It is 5.", "That is 7.", "No.")
    ]
    assert learned(renderer_with(trl_template("deepseek_r1_distill")), KINDS["reasoning"]) == [
        "I count on.\n</think>\n\nIt is 5.<｜end▁of▁sentence｜>",
        "From four.\n</think>\n\nThat is 7.<｜end▁of▁sentence｜>",
    ]
    assert learned(renderer_with(trl_template("phi3")), KINDS["multi-turn"]) == [
        "It is 5.<|end|>That is 7.<|end|>No.<|end|>"
    ]
    (found,) = learned(renderer_with(trl_template("glm4moe")), KINDS["tools"])
    assert found.endswith("\nIt is 5.<|user|>") and "</tool_call><|observation|>" in found


def test_tools_at_the_last_question_make_a_row_of_each_answer_before_it():
    conversation = KINDS["tools"]
    messages = [*conversation.messages, user("And now?"), assistant("Still 5.")]
    rows = learned(renderer_with(MISTRAL_TOOLS), conversation._replace(messages=messages))
    assert len(rows) == 2 and rows[0].startswith("[TOOL_CALLS]") and rows[1] == " Still 5.</s>"


@pytest.mark.parametrize("place", ["reasoning_content", "content"])
def test_reasoning_may_be_read_and_not_learned(place):
    renderer = renderer_with("", "chatml-tools", learn_reasoning=False)
    said = {"reasoning_content": "I count on."} if place == "reasoning_content" else {}
    content = "5" if said else "<think>\nI count on.\n</think>\n\n5"
    conversation = Conversation([user("2 + 3?"), assistant(content, **said)])
    assert learned(renderer, conversation) == ["<think>\n\n</think>\n\n5<|im_end|>"]
    (found,) = renderer.lay_out([conversation])
    assert isinstance(found, LaidOut) and "<think>\nI count on.\n</think>\n\n5<|im_end|>" in found.text


def test_reasoning_without_a_place_for_it_is_a_fault_that_says_what_to_write():
    (found,) = renderer_with("", "chatml").lay_out([KINDS["reasoning"]])
    assert str(found) == NO_REASONING and "chatml-tools" in NO_REASONING


def test_a_message_that_is_not_to_be_learned_is_read():
    messages = [user("2 + 3?"), assistant("Six.", train=False), user("Sure?"), assistant("No: 5.")]
    for template in ("chatml", "instruction", "chatml-tools"):
        renderer = renderer_with("", template)
        (text,) = learned(renderer, Conversation(messages))
        (found,) = renderer.lay_out([Conversation(messages)])
        assert text.startswith("No: 5.") and "Six." not in text
        assert isinstance(found, LaidOut) and "Six." in found.text


def test_the_shipped_template_with_tools_writes_all_of_them_in_one_row():
    renderer = renderer_with("", "chatml-tools")
    for kind, conversation in KINDS.items():
        assert len(learned(renderer, conversation)) == 1, kind


def test_a_call_that_a_template_leaves_out_is_told():
    conversation = Conversation(
        [user("?"), assistant("", tool_calls=[call(1, 2), call(2, 4)]), result(1, "5"), assistant("5")], TOOLS
    )
    (found,) = renderer_with(trl_template("gptoss")).lay_out([conversation])
    assert str(found).startswith("the chat template leaves out the tool calls (base_model.chat_template: chatml-tools")


def test_a_template_is_analysed_once_for_what_conversations_have_in_common(monkeypatch):
    renderer = renderer_with("", "chatml")
    tokenizer, rendered = renderer.tokenizer, []
    render = tokenizer.apply_chat_template

    def counted(conversations, **keys):
        rendered.extend(conversations)
        return render(conversations, **keys)

    monkeypatch.setattr(tokenizer, "apply_chat_template", counted)
    longest = 40
    rows = [Conversation([user("a"), assistant("b")] * turns) for turns in range(1, longest + 1) for _ in range(3)]
    assert all(isinstance(found, LaidOut) for found in renderer.lay_out(rows))
    # Each row once, and of the longest each beginning as prompt and as a whole, with and without space around turns.
    assert len(rendered) <= len(rows) + 4 * longest


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen3", "<think>\n\n</think>\n\n5<|im_end|>"),
        ("qwen3_5_think", "Two and three.\n</think>\n\n5<|im_end|>"),
        ("gptoss", "<|channel|>analysis<|message|>1<|end|><|start|>assistant<|channel|>final<|message|>5<|return|>"),
        ("llama3_2", "5<|eot_id|>"),
    ],
)
def test_what_a_model_thinks_is_no_part_of_its_answer(name, said):
    tokenizer = renderer_with(trl_template(name)).tokenizer
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert answer_of(tokenizer, ids, stop_token(tokenizer), before_answer(tokenizer)).text == "5"
