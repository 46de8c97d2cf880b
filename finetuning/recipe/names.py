"""What a recipe's file may be called: its name is a partition, a folder of artifacts, and a word in commands.

>>> fault_of("phi-2"), fault_of("phi,2")
(None, "',' would end the name in a list of partitions (`--partitions a,b`)")
"""

import unicodedata
from collections.abc import Iterable

LONGEST = 200  # bytes; a folder's name has 255 of them, and artifacts put more around it

# What Dagster, a shell's patterns or an address of object storage take for something else, and why.
TAKEN = {
    "...": "stands between the ends of a range of partitions",
    ",": "would end the name in a list of partitions (`--partitions a,b`)",
    "\\": "ends a folder's name on some systems",
    ":": "ends a folder's name on some systems",
    **dict.fromkeys("*?[]", "is part of a pattern"),
    **dict.fromkeys("#%", "is a sign of its own in addresses"),
}


def fault_of(name: str) -> str | None:
    """Say why a recipe cannot be called so; None where it can."""
    found = next((f"{text!r} {why}" for text, why in TAKEN.items() if text in name), None)
    unseen = next((letter for letter in name if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None)
    if unseen:
        return f"{unseen!r} cannot be seen or written"
    if name != name.strip() or name.endswith(".") or not name:
        return "it begins or ends with a space or a dot"
    if len(name.encode(errors="replace")) > LONGEST:
        return f"it has more than {LONGEST} bytes"
    return found


def written(name: str) -> str:
    """Return the name with what cannot be printed as Python writes it."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in name
    )


def advised(name: str) -> str:
    """Make of a name one that a recipe can have."""
    start = name.encode(errors="replace")[:LONGEST].decode(errors="ignore")
    letters = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in start)
    while ".." in letters or "--" in letters:
        letters = letters.replace("..", ".").replace("--", "-")
    return letters.strip("-.") or "recipe"


def twin_of(name: str, others: Iterable[str]) -> str | None:
    """Return the name among the others that differs in case or composition alone, as some disks keep one of both."""
    return next((other for other in others if other != name and _folded(other) == _folded(name)), None)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
