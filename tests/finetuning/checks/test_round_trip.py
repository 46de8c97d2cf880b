"""What a tokenizer loses of a text is told, and what means the same is not."""

import re
import unicodedata

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from finetuning.checks.round_trip import lost

MARKS = re.compile(re.escape("<|im_end|>"))
PROGRAM = "def f(x):\n    if x:\n        return 1\n    return 2"
TEXTS = {
    "Vietnamese": "Tiếng Việt có dấu thanh",
    "Hindi": "क़लम ज़मीन फ़िल्म",
    "Bengali": "বাংলা ভাষায় য় ড় ঢ়",
    "units": "Angstrom sign Å and kelvin K",
    "Korean": "각",
}


def decoded(text: str, normalizer: normalizers.Normalizer) -> str:
    """What comes back from a tokenizer of bytes that normalizes so."""
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[])
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.decode(tokenizer.encode(text).ids)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("normalizer", [normalizers.NFC(), normalizers.NFD()])
@pytest.mark.parametrize("name", TEXTS)
def test_composed_and_decomposed_letters_are_the_same(name, form, normalizer):
    text = unicodedata.normalize(form, TEXTS[name])
    assert lost(text, decoded(text, normalizer), MARKS) is None


@pytest.mark.parametrize("text", ["ﬁne ﬂow", "１２３ ＡＢＣ", "a\u00a0b", "ﻼ", "wait…", "a\u200bb", "\ufeffa"])
def test_characters_that_stand_for_others_without_a_difference_are_the_same(text):
    once = decoded(text, normalizers.NFKC()).replace("\u200b", "").replace("\ufeff", "")
    assert once != text and lost(text, once, MARKS) is None


@pytest.mark.parametrize("text", ["2⁵ is 32", "1½ cups", "H₂O", "① and ②", "5 m²", "5 ㎡", "𝐱 is no x"])
def test_raised_circled_and_bold_characters_mean_something(text):
    assert lost(text, decoded(text, normalizers.NFKC()), MARKS).startswith("changes characters")


def test_the_case_of_letters_and_their_accents_mean_something():
    text = "US and us, Paris"
    assert lost(text, decoded(text, normalizers.Lowercase()), MARKS) == "changes the case of letters"
    stripped = decoded("schön", normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]))
    assert lost("schön", stripped, MARKS) == "decodes to another text"


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("2 + 3?", " 2 + 3?"),
        ("2 + 3?", "2 + 3 ?"),
        ("a  b ", "a b"),
        ("a, b", "a , b"),
        ("a\r\nb", "a\nb"),
        ("a\n\n\nb", "a\nb"),
        ("user\nyes <|im_end|>\nassistant", "user\nyes<|im_end|> assistant"),
        (PROGRAM, f" {PROGRAM} "),
        ("“a”", "“ a ”"),
    ],
)
def test_white_space_that_parts_nothing_is_the_same(text, other):
    assert lost(text, other, MARKS) is None


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (PROGRAM, " ".join(PROGRAM.split())),
        (PROGRAM, "\n".join(line.strip() for line in PROGRAM.splitlines())),
        (PROGRAM, PROGRAM.replace("    return 2", "return 2")),
        ("New York", "NewYork"),
        ("unbelievable", "un believable"),
        ("- a\n- b", "- a - b"),
        ("a\tb", "a b"),
    ],
)
def test_lost_lines_indentation_and_words_are_told(text, other):
    assert lost(text, other, MARKS) == "loses spaces, line breaks or indentation"


def test_another_text_is_told():
    assert lost("a \x1d b", "a  b", MARKS) == "decodes to another text"
    assert lost("yes<|im_end|>", "yes", MARKS) == "decodes to another text"
