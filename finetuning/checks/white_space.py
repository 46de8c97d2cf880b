"""Tells texts that differ in white space alone, unless it may carry meaning, as the indentation of a program does.

"Name a river  near Oslo. " and "Name a river near\\nOslo." -> "Name a river near Oslo."
"if x:\\n    a()\\n    b()" and "if x:\\n    a()\\nb()" -> each as it is
"""

import re

WHITE_SPACE = ("\n", "  ", "\t", "\r", "\xa0")
# A later line that is indented, and signs that programs, data and markup have and sentences do not.
SIGNS = ("\n ", "\n\t", *"{}[]=<>`|\\$", ";\n", "\n#", "\n@", "\n/")
FIRST = ("#", "@", "/")
CALL = re.compile(r"\w\(")


def bare(text: str) -> str:
    """Return the text with one space for any white space; where that may carry meaning, without such at line ends.

    Text that looks like a program, data or markup keeps its line breaks, its indentation and the spaces in its lines.
    """
    if not any(sign in text for sign in WHITE_SPACE) and text == text.strip():
        return text
    if not _has_structure(text.strip()):
        return " ".join(text.split())
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").split("\n")).strip("\n")


def _has_structure(text: str) -> bool:
    """Whether a text, without white space at its ends, looks like a program, data or markup."""
    if any(sign in text for sign in SIGNS) or text.startswith(FIRST) or text.endswith(";") or text.count("\t") > 1:
        return True
    return "(" in text and CALL.search(text) is not None
