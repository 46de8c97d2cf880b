"""Control tokens for vocabularies that lack them: renamed entries and new ones, the same in every process."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoTokenizer, ByT5Tokenizer, GemmaTokenizer, PreTrainedTokenizerFast

from finetuning.chat.vocabulary import RESERVED, add_control_tokens, new_tokens, unused_entries
from tests.conftest import train_tiny_tokenizer
from tests.warm_server import WarmServer

TOKENS = ["<|im_start|>", "<|im_end|>"]
TEXT = "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n"
LOAD = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer(sys.argv[2], add_special_tokens=False)["input_ids"]
shown = tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)
print(json.dumps([ids, *shown, tokenizer.get_vocab()]))
"""


def with_entries(*entries, special=True):
    tokenizer = train_tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(entry, special=special, lstrip=True) for entry in entries])
    return tokenizer


def gemma():
    """Gemma's own class, which builds its tokenizer anew from the saved vocabulary; `<unused0>` is no added token."""
    pieces = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        "<unused0>",
        "<unused1>",
        "▁",
        *(f"<0x{i:02X}>" for i in range(256)),
    ]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *"Whatiuser", "th"]) if piece}
    return GemmaTokenizer(vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=[("t", "h")])


def unigram():
    """A vocabulary of pieces with scores, as Mistral's and T5's are."""
    pieces = ["<unk>", "</s>", "[control_8]", "[control_9]", *"Whatiuser23 +?\n"]
    model = models.Unigram([(piece, -1.0) for piece in dict.fromkeys(pieces)], 0, False)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>", eos_token="</s>")


MADE = {
    "llama": lambda: with_entries("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    "falcon": lambda: with_entries(">>UNUSED_0<<", ">>UNUSED_1<<", special=False),
    "one entry, one new": lambda: with_entries("<|dummy_0|>"),
    "none": train_tiny_tokenizer,
    "gemma": gemma,
    "unigram": unigram,
}


@pytest.mark.parametrize("name", MADE)
def test_another_process_reads_the_tokens_as_this_one_does(name, tmp_path):
    tokenizer = MADE[name]()
    add_control_tokens(tokenizer, TOKENS, "")
    tokenizer.save_pretrained(tmp_path)
    ids, text, plain, vocabulary = json.loads(WarmServer.run_code(LOAD, str(tmp_path), TEXT).stdout.splitlines()[-1])
    assert ids == tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert vocabulary == tokenizer.get_vocab()
    assert all(ids.count(vocabulary[token]) == 1 for token in TOKENS)
    assert all(token in text and token not in plain for token in TOKENS)


@pytest.mark.parametrize("name", MADE)
def test_every_other_token_keeps_its_id(name):
    before, tokenizer = MADE[name]().get_vocab(), MADE[name]()
    given = add_control_tokens(tokenizer, TOKENS, "")
    renamed = {origin.removeprefix("renamed ") for origin in given.values() if origin.startswith("renamed ")}
    after = {token: number for token, number in tokenizer.get_vocab().items() if token not in TOKENS}
    assert after == {token: number for token, number in before.items() if token not in renamed}
    assert len(tokenizer) == len(before) + 2 - len(renamed)


@pytest.mark.parametrize(
    ("name", "origins"),
    [
        ("gemma", ["renamed <unused0>", "renamed <unused1>"]),
        ("one entry, one new", ["renamed <|dummy_0|>", "new token 306, a new row of the embeddings"]),
        ("none", ["new token 305, a spare row of the embeddings", "new token 306, a new row of the embeddings"]),
    ],
)
def test_it_says_where_each_token_came_from(name, origins):
    assert add_control_tokens(MADE[name](), TOKENS, "", rows=306) == dict(zip(TOKENS, origins, strict=True))


@pytest.mark.parametrize("name", MADE)
def test_what_is_new_to_the_base_model_is_known_from_the_saved_tokenizers(name, tmp_path):
    tokenizer = MADE[name]()
    tokenizer.save_pretrained(tmp_path / "base")
    add_control_tokens(tokenizer, TOKENS, "")
    tokenizer.save_pretrained(tmp_path / "chat")
    base, chat = (AutoTokenizer.from_pretrained(tmp_path / folder) for folder in ("base", "chat"))
    assert new_tokens(chat, base) == sorted(tokenizer.convert_tokens_to_ids(TOKENS))
    assert new_tokens(base, base) == []


def test_an_entry_that_is_listed_as_special_does_not_come_back_under_its_old_name(tmp_path):
    tokenizer = train_tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<unused0>", "<tool>"]})
    size = len(tokenizer)
    add_control_tokens(tokenizer, ["<|im_end|>"], "")
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert len(again) == size and "<unused0>" not in again.get_vocab()
    assert set(again.extra_special_tokens) == {"<tool>", "<|im_end|>"}


def test_entries_in_use_are_not_renamed():
    tokenizer = with_entries("<unused0>", "<unused1>", "<unused2>", "<unused3>")
    tokenizer.pad_token = "<unused0>"
    tokenizer.chat_template = "{{ '<unused1>' }}"
    assert unused_entries(tokenizer) == ["<unused2>", "<unused3>"]
    assert add_control_tokens(tokenizer, ["<|im_end|>"], "ends in <unused2>") == {"<|im_end|>": "renamed <unused3>"}


def test_a_vocabulary_entry_that_was_not_found_whole_becomes_special():
    tokenizer = gemma()
    assert len(tokenizer("th<unused1>")["input_ids"]) > 2
    number = tokenizer.get_vocab()["<unused1>"]
    assert add_control_tokens(tokenizer, ["<unused1>"], "") == {"<unused1>": f"entry {number}, now special"}
    assert tokenizer("<unused1>")["input_ids"] == [number]


def test_a_tokenizer_without_a_fast_backend_gets_new_entries():
    tokenizer = ByT5Tokenizer(extra_ids=0)
    tokenizer.add_tokens(["<unused0>"])
    size = len(tokenizer)
    assert add_control_tokens(tokenizer, TOKENS, "") == {
        token: f"new token {size + i}" for i, token in enumerate(TOKENS)
    }
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [size + 1]


@pytest.mark.parametrize(
    "entry",
    [
        "<unused0>", "<|reserved_special_token_247|>", ">>UNUSED_12<<", "[unused99]", "[control_8]", "<SPECIAL_20>",
        "<reserved_0>", "<|reserved_3|>", "<|reserved_token_5|>", "<|extra_0|>", "<|dummy_7|>", "<|placeholder1|>",
    ],
)  # fmt: skip
def test_reserved_entries_are_known_by_their_names(entry):
    assert RESERVED.fullmatch(entry)


@pytest.mark.parametrize(
    "entry", ["<|im_start|>", "<extra_id_0>", "unused0", "<0x0A>", "[INST]", "<|python_tag|>", "<s1>"]
)
def test_other_entries_are_left_alone(entry):
    assert not RESERVED.fullmatch(entry)
