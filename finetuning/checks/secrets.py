"""Finds text that looks like a secret: the patterns of detect-secrets for keys and tokens of known services."""

import re
from functools import cache
from typing import Any

import re2
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector

# An address is no secret, and Artifactory's pattern takes ordinary words that begin with AP for one.
LEFT_OUT = ("Public IP (ipv4)", "Artifactory Credentials")
# Services that the library does not know yet, by the shapes that they document.
FURTHER = {
    "Hugging Face Token": r"\bhf_[A-Za-z]{34}\b",
    "GitHub Token": r"\bgithub_pat_[A-Za-z0-9_]{82}\b",
    "Google API Key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "OpenAI Token": r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}",
    "Anthropic API Key": r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,}",
}
LOOKAROUND = re.compile(r"\(\?<?[=!](?:[^()\\]|\\.)*\)")
MOST_REPETITIONS = re.compile(r"\{(\d+),\d{4,}\}")


def find_secret(text: str) -> str | None:
    """Return what kind of secret the text seems to hold, such as `AWS Access Key`; None where it holds none."""
    matcher, patterns = _patterns()
    for number in sorted(matcher.Match(text) or ()):
        kind, pattern = patterns[number]
        if pattern.search(text):
            return kind
    return None


@cache
def _patterns() -> tuple[Any, list[tuple[str, re.Pattern[str]]]]:
    """Compile a matcher of all patterns in one pass over a text; return it, and the patterns in its order.

    The matcher knows no lookaround, so that it finds too much; the pattern itself then decides.
    """
    options = re2.Options()
    options.log_errors = False
    matcher, patterns = re2.Set.SearchSet(options), []
    for kind, detector in get_mapping_from_secret_type_to_class().items():
        if issubclass(detector, RegexBasedDetector) and kind not in LEFT_OUT:
            patterns += [(kind, pattern) for pattern in detector().denylist]
    patterns += [(kind, re.compile(pattern)) for kind, pattern in FURTHER.items()]
    for _, pattern in patterns:
        wider = MOST_REPETITIONS.sub(r"{\1,}", LOOKAROUND.sub("", pattern.pattern))
        matcher.Add(f"(?i){wider}" if pattern.flags & re.IGNORECASE else wider)
    matcher.Compile()
    return matcher, patterns
