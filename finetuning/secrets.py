"""Finds text that looks like a secret: the patterns of detect-secrets for keys and tokens of known services."""

import re
from functools import cache
from typing import Any

# An address is no secret, and Artifactory's pattern takes ordinary words that begin with AP for one.
LEFT_OUT = ("Public IP (ipv4)", "Artifactory Credentials")
# Services that the library does not know yet, by the shapes that they document.
FURTHER = {
    "Hugging Face Token": r"\bhf_[A-Za-z]{34}\b",
    "GitHub Token": r"\bgithub_pat_[A-Za-z0-9_]{82}\b",
    "Google API Key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "OpenAI Token": r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}",
    # With a slash in the password, which is none of a port.
    "Basic Auth Credentials": r"://[^\s:/?#@]+:(?!\d{1,5}[/?#])[^\s@\"'<>]+@",
    "Anthropic API Key": r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,}",
}
# Of a key in a file the library knows the first line alone.
PRIVATE_KEY = re.compile(
    r"(?:-{2,5} ?)?\bBEGIN [A-Z0-9 ]{0,40}PRIVATE KEY.*?(?:\bEND [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?(?: ?-{2,5})?|\Z)"
    r"|PuTTY-User-Key-File-\d.*?(?:Private-MAC: *\w+|\Z)",
    re.DOTALL,
)
# How JSON and programs write a character: JSON within JSON has several of the first. They are looked at once, for each
# of thousands could begin an escape that is none.
ESCAPED = re.compile(r"(?<!\\)\\++(?:u([0-9a-fA-F]{4})|([/nrt]))")
# What a finding goes on with: of some keys only the beginning has a fixed length.
WORD = re.compile(r"[\w+/=.~-]*")
LOOKAROUND = re.compile(r"\(\?<?[=!](?:[^()\\]|\\.)*\)")
# Quantifiers without an end, and what looks like them: sets of characters and escapes.
ENDLESS = re.compile(r"(\[\^?\]?(?:\\.|[^\]\\])*\]|\\.)|( ?)([+*])")
# Characters of a part of a secret, as each place where one may begin is read so far; and spaces, which three parts in a
# row may be.
LONGEST, MOST_SPACES = 4000, 100
MOST_REPETITIONS = re.compile(r"\{(\d+),\d{4,}\}")


def find_secret(text: str) -> str | None:
    """Return what kind of secret the text seems to hold, such as `AWS Access Key`; None where it holds none.

    One that is written with escapes, as JSON may have it, is one too.
    """
    return _found(text) or (_found(unescaped(text)) if "\\" in text else None)


def unescaped(text: str) -> str:
    """Return the text with the characters that its escapes stand for: `https:\\/\\/`, `\\u0041KIA`."""

    def character(escape: re.Match[str]) -> str:
        code, letter = escape.groups()
        return chr(int(code, 16)) if code else {"/": "/", "t": "\t"}.get(letter, "\n")

    return ESCAPED.sub(character, text)


def _found(text: str) -> str | None:
    return next((kind for kind, pattern in _candidates(text) if pattern.search(text)), None)


def _candidates(text: str) -> list[tuple[str, re.Pattern[str]]]:
    """The patterns that may find something in the text, which may hold halves of surrogates."""
    matcher, patterns = _patterns()
    return [patterns[number] for number in sorted(matcher.Match(text.encode(errors="replace")) or ())]


def masked(text: str) -> str:
    """Return the text with the kind of each secret in its place, for people to read: `my key is [AWS Access Key]`.

    Ask before a text is cut, for of half a secret nothing is found.
    """
    if "\\" in text and not _found(text) and _found(unescaped(text)):
        text = unescaped(text)
    text = PRIVATE_KEY.sub("[Private Key]", text)
    for kind, pattern in _candidates(text):
        text = _replaced(text, pattern, f"[{kind}]")
    return text


def _replaced(text: str, pattern: re.Pattern[str], kind: str) -> str:
    """The text with all findings replaced, each with the rest of the word that it is in."""
    parts, end = [], 0
    for found in pattern.finditer(text):
        begin = found.start()
        while begin > end and text[begin - 1] != "=" and WORD.fullmatch(text[begin - 1]):
            begin -= 1
        if begin >= end:
            parts += [text[end:begin], kind]
        rest = WORD.match(text, max(found.end(), end))
        end = rest.end() if rest else found.end()
    return "".join([*parts, text[end:]])


def _bounded(pattern: str) -> str:
    """The pattern with an end to each quantifier, as the time would else grow with the square of a text's length."""

    def part(found: re.Match[str]) -> str:
        known, space, quantifier = found.groups()
        return known or f"{space}{{{int(quantifier == '+')},{MOST_SPACES if space else LONGEST}}}"

    return ENDLESS.sub(part, pattern)


@cache
def _patterns() -> tuple[Any, list[tuple[str, re.Pattern[str]]]]:
    """Compile a matcher of all patterns in one pass over a text; return it, and the patterns in its order.

    The matcher knows no lookaround, so that it finds too much; the pattern itself then decides.
    """
    import re2  # these take longer to load than whoever only may need them should wait
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    options = re2.Options()
    options.log_errors = False
    matcher, patterns = re2.Set.SearchSet(options), []
    for kind, detector in get_mapping_from_secret_type_to_class().items():
        if issubclass(detector, RegexBasedDetector) and kind not in LEFT_OUT:
            patterns += [(kind, pattern) for pattern in detector().denylist]
    patterns += [(kind, re.compile(pattern)) for kind, pattern in FURTHER.items()]
    for number, (kind, pattern) in enumerate(patterns):
        patterns[number] = (kind, re.compile(_bounded(pattern.pattern), pattern.flags))
        wider = MOST_REPETITIONS.sub(r"{\1,}", LOOKAROUND.sub("", pattern.pattern))
        matcher.Add(f"(?i){wider}" if pattern.flags & re.IGNORECASE else wider)
    matcher.Compile()
    return matcher, patterns
