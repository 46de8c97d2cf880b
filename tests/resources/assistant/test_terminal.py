"""The chat at the terminal: what is typed is answered, commands do what the list says, and mistakes are told."""

import io
import json

import pytest
from rich.console import Console
from rich.markdown import Markdown

from finetuning.assistant.assistant import Asking
from finetuning.errors import FinetuningError
from resources.assistant.__main__ import main
from resources.assistant.terminal import Chat, printable

QUESTION = "Solve for x: 2x = 8."


def talk(assistant, *lines, side="tuned", terminal=False, **how):
    """What a person sees who types these lines, and the chat."""
    said, typed = io.StringIO(), iter(lines)
    console = Console(file=said, width=100, force_terminal=terminal)
    chat = Chat(assistant.assistant, console, Asking(**how), side)

    def read():
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    chat.run(read)
    return said.getvalue(), chat


def answer_to(chat, name, number=-1):
    return chat.history[name][number]["content"]


def test_an_answer_is_shown_and_kept(assistant):
    seen, chat = talk(assistant, QUESTION)
    told, shown = ("".join(text.split()) for text in (printable(answer_to(chat, "tiny")), seen))
    assert told in shown and len(told) > 3
    assert "lora_adapter/tiny/0123456789abcdef" in seen and "passed" in seen


def test_both_answer_with_a_history_of_their_own(assistant):
    _, chat = talk(assistant, "/both", QUESTION, "/base", "And y?")
    assert answer_to(chat, "tiny", 1) != answer_to(chat, "tiny/base", 1)
    assert [len(said) for said in chat.history.values()] == [2, 4]


def test_the_system_message_is_that_of_training_until_another_is_set(assistant):
    _, usual = talk(assistant, QUESTION)
    seen, other = talk(assistant, "/system Speak French.", QUESTION)
    assert (usual.system, other.system) == ("Solve it.", "Speak French.")
    assert answer_to(usual, "tiny") != answer_to(other, "tiny") and "system message set" in seen
    assert talk(assistant, "/system")[1].system == ""


def test_a_new_conversation_knows_nothing_of_the_old(assistant):
    _, chat = talk(assistant, "Remember 5.", "/new", QUESTION)
    assert len(chat.history["tiny"]) == 2
    assert answer_to(chat, "tiny") == answer_to(talk(assistant, QUESTION)[1], "tiny")


def test_what_was_said_is_saved_as_rows_of_messages(assistant, tmp_path):
    file = tmp_path / "talk.jsonl"
    seen, chat = talk(assistant, "/both", QUESTION, f"/save {file}", f"/save {file}", "/save")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["model"] for row in rows] == ["tiny", "tiny/base"]
    assert rows[0]["messages"][0] == {"role": "system", "content": "Solve it."}
    assert rows[0]["messages"][1:] == chat.history["tiny"]
    assert "is there already; name another file" in seen.replace("\n", " ") and "name a file, such as" in seen


def test_mistakes_are_told_and_the_talk_goes_on(assistant, tmp_path):
    seen, chat = talk(assistant, "/nix", "x " * 2000, f"/save {tmp_path}/no/such/folder.jsonl", "/help", QUESTION)
    assert "/nix is no command; /help lists them" in seen
    assert "Shorten it" in seen and "No such file" in seen and "/tuned, /base, /both" in seen
    assert len(chat.history["tiny"]) == 2


@pytest.mark.parametrize(
    "line, told",
    [
        ("/save ~nobody-of-that-name/x.jsonl", "/save: '~nobody-of-that-name/x.jsonl' is no file's name"),
        ("/save a\0b", "is no file's name: embedded null"),
        ("/save \udcff.jsonl", "half of a character"),
        ("half \ud800 of a character", "half of a character"),
        ("/system half \ud800 of a character", "half of a character"),
        ("/nix\x1b[2J \ud800", "half of a character"),
        ("/nix\x1b[2J", "/nix\ufffd[2J is no command"),
    ],
)
def test_whatever_is_typed_the_talk_goes_on_with_what_was_said(assistant, line, told):
    seen, chat = talk(assistant, QUESTION, line, "And y?")
    assert told in seen.replace("\n", " ") and "\x1b" not in seen
    assert [message["role"] for message in chat.history["tiny"]] == ["user", "assistant"] * 2


def test_what_nobody_thought_of_is_told_and_the_talk_goes_on(assistant, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(assistant.assistant.tokenizer, "decode", lambda *given, **how: 1 / 0)
        seen, chat = talk(assistant, QUESTION, "/new")
    assert "ZeroDivisionError: division by zero" in seen and chat.history["tiny"] == []


def test_an_answer_that_is_cut_says_so(assistant):
    seen, _ = talk(assistant, QUESTION, max_tokens=3)
    assert "ended at 3 tokens" in seen


def test_turns_that_are_left_out_are_told(assistant):
    seen, _ = talk(assistant, *["x " * 60] * 6)
    assert "oldest turn(s) left out" in seen


def test_a_terminal_shows_markdown(assistant):
    seen, chat = talk(assistant, QUESTION, terminal=True)
    assert "\x1b[" in seen and len(chat.history["tiny"]) == 2


def test_a_terminal_is_never_told_what_to_do_by_an_answer():
    assert printable("a\x1b[2J\x07\rb\x9b1m\n\tc") == "a\ufffd[2J\ufffd\ufffdb\ufffd1m\n\tc"


@pytest.mark.parametrize(
    "text", ["&#27;[2J", "[a&#x1b;[2J](http://q/&#27;x)", "`\x1b[2J`", "```\x1b]0;t\x07\n\x1b[2J\n```"]
)
def test_nor_by_one_in_markdown(text):
    shown = io.StringIO()
    Console(file=shown, force_terminal=True).print(Markdown(printable(text)))
    assert "\x1b[2J" not in shown.getvalue() and "\x1b]0" not in shown.getvalue()


def test_the_end_of_input_and_quit_end_it(assistant):
    assert len(talk(assistant, "/quit", QUESTION)[1].history["tiny"]) == 0
    assert talk(assistant)[0].endswith("/help lists the commands\n")


def test_an_answer_that_fails_is_told_and_the_talk_goes_on(assistant, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(assistant.assistant.model, "generate", lambda **given: 1 / 0)
        seen, chat = talk(assistant, QUESTION)
    assert "the answer failed: ZeroDivisionError: division by zero" in seen and chat.history["tiny"] == []
    assert len(talk(assistant, QUESTION)[1].history["tiny"]) == 2


@pytest.mark.parametrize(
    "given", [["--temperature", "-1"], ["--temperature", "nan"], ["--max-tokens", "0"], ["--seed", "x"]]
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_loaded(given, capsys):
    with pytest.raises(SystemExit) as error:
        main(["chat", "tiny", *given])
    assert error.value.code == 2 and f"argument {given[0]}" in capsys.readouterr().err


def test_a_port_that_is_none_is_not_called_taken(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "tiny", "--port", "99999"])
    assert "99999 is not from 0 to 65,535" in capsys.readouterr().err


def test_a_merged_model_has_no_base_to_talk_to(assistant, monkeypatch):
    monkeypatch.setattr(assistant.assistant, "base", None)
    with pytest.raises(FinetuningError, match="has no base beside it"):
        Chat(assistant.assistant, Console(file=io.StringIO()), Asking(), "both")
