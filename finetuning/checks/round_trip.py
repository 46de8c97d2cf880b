"""Compares a text with what its tokens decode to: what is lost in between, and whether that carries meaning.

"Tiếng" in composed letters for "Tiếng" in decomposed ones, "fi" for the ligature: the same text
"paris" for "Paris", "25" for "2⁵", one line for two, no indentation: another text
"""

import re
import unicodedata

# Characters that another one stands for without a difference for a reader; a raised 2 is none of them.
SAME_MEANING = ("<wide>", "<narrow>", "<noBreak>", "<small>", "<vertical>", "<compat>")
SAME_MEANING += ("<initial>", "<medial>", "<final>", "<isolated>")
INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))  # where a line may break, and a byte order mark
TAB, WHITE_SPACE = 4, " \t\r\n"


def lost(text: str, decoded: str, marks: re.Pattern[str]) -> str | None:
    """Return what of a text is not in what its tokens decode to, or None where a reader would miss nothing.

    Args:
        marks: control tokens, which may take the white space beside them.
    """
    if text == decoded:
        return None
    one, other = (_canonical(side, marks) for side in (text, decoded))
    if one == other:
        return None
    together, other_together = (re.sub("[ \\t\\n]", "", side) for side in (one, other))
    if together == other_together:
        return "loses spaces, line breaks or indentation"
    if one.casefold() == other.casefold():
        return "changes the case of letters"
    if unicodedata.normalize("NFKC", together) == unicodedata.normalize("NFKC", other_together):
        return "changes characters, such as a raised 2 to a plain one"
    return "decodes to another text"


def _canonical(text: str, marks: re.Pattern[str]) -> str:
    """The text with one spelling for all that means the same: composed letters, no space that parts nothing."""
    parts, start = [], 0
    for mark in marks.finditer(text):
        parts += [_lines(text[start : mark.start()]), mark[0]]
        start = mark.end()
    return "\n".join(filter(None, [*parts, _lines(text[start:])]))


def _lines(text: str) -> str:
    """The lines that are not blank, each with its indentation, and with spaces only where they part two words."""
    text = unicodedata.normalize("NFC", text).translate(INVISIBLE)
    if not text.isascii():
        text = "".join(map(_plain, text))
    found = []
    lines = text.strip(WHITE_SPACE).replace("\r\n", "\n").split("\n")
    for number, line in enumerate(line for line in lines if line.strip(WHITE_SPACE)):
        words = re.sub(r"(?<!\w) | (?!\w)", "", re.sub(" +", " ", line.strip(WHITE_SPACE)))
        wide = line.expandtabs(TAB)
        found.append(" " * (len(wide) - len(wide.lstrip(WHITE_SPACE))) * (number > 0) + words)
    return "\n".join(found)


def _plain(letter: str) -> str:
    kind = unicodedata.decomposition(letter).partition(" ")[0]
    return unicodedata.normalize("NFKC", letter) if kind in SAME_MEANING else letter
