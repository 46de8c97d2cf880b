"""Secrets of known shapes are found, and ordinary text is not taken for one.

They are put together from pieces, so that no scanner takes this file for a leak.
"""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.secrets import ESCAPED, find_secret, masked

LETTERS = "aBcDeFgHiJkLmNoPqRsTuVwXyZ"
MIXED = "a1B2c3D4e5F6g7H8i9J0"
PLANTED = {
    "AWS Access Key": "AKIA" + "IOSFODNN7" + "QRSTUVW",
    "Hugging Face Token": "hf_" + (LETTERS * 2)[:34],
    "GitHub Token": "ghp_" + (MIXED * 2)[:36],
    "GitHub Token, fine-grained": "github" + "_pat_" + (MIXED * 5)[:82],
    "Google API Key": "AIza" + (MIXED * 2)[:35],
    "OpenAI Token": "sk-" + "proj-" + MIXED * 4,
    "Anthropic API Key": "sk-" + "ant-" + "api03-" + MIXED * 5,
    "Slack Token": "xoxb-" + "123456789012-" + "123456789012-" + (LETTERS + LETTERS)[:24],
    "Stripe Access Key": "sk_" + "live_" + (MIXED * 2)[:24],
    "Private Key": "-----BEGIN " + "RSA PRIVATE " + "KEY-----",
    "JSON Web Token": "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + "." + MIXED * 2,
    "Basic Auth Credentials": "https://" + "anna:" + "s3cr3tpass" + "@example.com/x",
    "NPM tokens": "//registry.npmjs.org/:_" + "authToken=" + "npm_" + (MIXED * 2)[:36],
    "GitLab Token": "glpat-" + MIXED,
}
ORDINARY = [
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = 72 clips.\n#### 72",
    "Solve for y: 10 - 4 = -2 - 1y + 9y .",
    "def add(a, b):\n    password = None\n    return a + b  # TODO: token = next(tokens)",
    "import os\ntoken = os.environ['HF_TOKEN']\nkey = b'key'\napi_key: str = get_key()",
    "See https://example.com/a/b?id=1234567890abcdef&page=2#top and write to anna.b@example.org.",
    "The server at 192.168.0.1 answers on port 8080; 10.0.0.255 does not.",
    "commit 9c474bd1f2deabc6000910a3de3539f61cbffd08d8009 in sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b8",
    "APPLE, APRICOT and APARTMENT_BUILDINGS begin with AP; so does APPROXIMATELYEQUALTOTHEOTHERONE.",
    "UUID 123e4567-e89b-12d3-a456-426614174000, ISBN 978-3-16-148410-0, phone +49 30 123456",
    "AKIA is the beginning of a key, hf_ of another, and sk-learn is a library; ghp_ too.",
    "base64: TWFueSBoYW5kcyBtYWtlIGxpZ2h0IHdvcmsuIFRoaXMgaXMgYSB0ZXN0IG9mIGVuY29kaW5nLg==",
    "glpat" + "-" + "a" * 60,
    "{{ bos_token }}<|im_start|>user\n\\frac{1}{2} + \\sqrt{x_{1}} = 3",
    "",
]


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.long("texts that are made to take long")
@pytest.mark.parametrize("around", ["{}", "my key is {} .", "x = '{}'\n", "first line\n\n{}\nlast line", "é {}"])
def test_a_secret_is_found_wherever_it_is(kind, around):
    assert find_secret(around.format(PLANTED[kind]))


@pytest.mark.parametrize(
    "kind", ["AWS Access Key", "Hugging Face Token", "GitHub Token", "Slack Token", "Private Key", "JSON Web Token"]
)
def test_the_kind_of_secret_is_told(kind):
    assert find_secret(f"It is {PLANTED[kind]} .") == kind


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_no_secret(text):
    assert find_secret(text) is None


def test_generated_equations_are_no_secrets():
    from finetuning.dataset import linear_equations

    rows = linear_equations.generate(300, 1)
    assert not [row for row in rows if find_secret("\n".join(map(str, row.values())))]


@settings(max_examples=200)
@given(st.text(max_size=80), st.sampled_from(sorted(PLANTED)))
def test_any_text_can_be_around_a_secret(text, kind):
    assert find_secret(f"{text}\n{PLANTED[kind]}\n{text}")


def test_a_long_text_is_searched_at_once():
    assert find_secret("aaaa bbbb 1234 " * 100_000) is None
    assert find_secret("aaaa bbbb 1234 " * 100_000 + PLANTED["AWS Access Key"]) == "AWS Access Key"


REPEATED = [
    "\\", "\\u", "\\u00", "://a:", "://a:b", "://", "//", "eyJ", "eyJa", "sk-", "sk-a1", "xoxb-", "xoxb-1-", "token  ",
    "token" + " " * 3000, "key=", "PuTTY-User-" + "Key-File-2", "BEGIN " + "PRIVATE KEY ", "BEGIN A", "glpat-", "=",
]  # fmt: skip
# Which patterns are tried is decided by what may be in a text.
TRIED = " ".join([*(key for kind, key in PLANTED.items() if kind != "Private Key"), "token=" + "a1" * 22, "://a:b@c"])


@pytest.mark.parametrize("around", ["{}", "{} ://a:b@c", "{}\n" + TRIED])
@pytest.mark.parametrize("part", REPEATED)
def test_the_time_grows_with_the_length_of_a_text_and_not_with_its_square(part, around):
    begun = time.process_time()
    text = around.format(part * (300_000 // len(part)))
    find_secret(text)
    masked(text)
    assert time.process_time() - begun < 10  # by the square, minutes


@settings(max_examples=500)
@given(st.text(alphabet="\\unrt/0041aé", max_size=30))
def test_escapes_are_those_that_a_slower_pattern_finds(text):
    slower = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|([/nrt]))")
    assert [found.span() for found in ESCAPED.finditer(text)] == [found.span() for found in slower.finditer(text)]


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize(
    "around", ["{}", "my key is {} .", "x = '{}'\n", "first line\n\n{}\nlast line", "é {}", "{} {}"]
)
def test_nothing_of_a_secret_is_left_and_all_around_it(kind, around):
    secret = PLANTED[kind]
    shown = masked(around.format(secret, secret))
    assert find_secret(shown) is None
    parts = [secret[i : i + 8] for i in range(len(secret) - 7)]
    spoken = "https://", "//registry.npmjs.org", "@example.com/x"
    assert not [part for part in parts if part in shown and not any(part in word for word in spoken)]
    # Of a private key all is one until its end, which is not here.
    for word in ("my key is", "x = '", "first line", "é", *(() if kind == "Private Key" else ("last",))):
        assert (word in shown) == (word in around)


def test_of_a_secret_that_is_longer_than_its_pattern_nothing_is_left():
    key = PLANTED["Stripe Access Key"] + MIXED * 3
    body = "\n".join([PLANTED["Private Key"], MIXED * 3, MIXED * 2, "-----END " + "RSA PRIVATE " + "KEY-----", "after"])
    assert masked(f"It is {key}, he said") == "It is [Stripe Access Key], he said"
    assert masked(f"before\n{body}") == "before\n[Private Key]\nafter"
    assert masked(body.partition("-----END")[0]) == "[Private Key]"


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_as_it_is(text):
    assert masked(text) == text


@settings(max_examples=200)
@given(st.text(max_size=80), st.sampled_from(sorted(PLANTED)))
def test_whatever_is_around_a_secret_it_is_gone(text, kind):
    assert PLANTED[kind] not in masked(f"{text} {PLANTED[kind]} {text}")


@pytest.mark.parametrize(
    "text",
    [
        PLANTED["Basic Auth Credentials"].replace("/", "\\/"),
        PLANTED["Basic Auth Credentials"].replace("/", "\\\\\\/"),
        "\\u0041" + PLANTED["AWS Access Key"][1:],
        "first line\\n" + PLANTED["Hugging Face Token"],
        "https://" + "u:s3cr3t" + "/s3cr3t@host.example/x",
    ],
)
def test_a_secret_that_is_written_with_escapes_is_found_and_masked(text):
    assert find_secret(text)
    shown = masked(f"it is {text} .")
    assert "s3cr3t" not in shown and PLANTED["AWS Access Key"][4:] not in shown and LETTERS[:20] not in shown


@pytest.mark.parametrize(
    "text", ["see https://localhost:8080/a@b", r"\\frac{1}{2} \\nu \\u12", r"C:\\users\\new", "a\\/b"]
)
def test_escapes_alone_and_ports_are_no_secrets(text):
    assert find_secret(text) is None and masked(text) == text


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("PuTTY-User-" + "Key-File-2: ssh-rsa\n", "Private-MAC: 0123abcd"),
        ("---- BEGIN SSH2 ENCRYPTED " + "PRIVATE KEY ----\n", "---- END SSH2 ENCRYPTED PRIVATE KEY ----"),
        ("BEGIN RSA " + "PRIVATE KEY\n", "END RSA PRIVATE KEY"),
        ("-----BEGIN PGP " + "PRIVATE KEY BLOCK-----\n", "-----END PGP PRIVATE KEY BLOCK-----"),
    ],
)
def test_all_of_a_private_key_is_masked_in_each_format(begin, end):
    shown = masked(f"before\n{begin}{MIXED}\n{MIXED}\n{end}\nafter")
    assert MIXED not in shown and shown.startswith("before") and shown.endswith("\nafter")
    assert MIXED not in masked(f"{begin}{MIXED}")


@pytest.mark.parametrize("half", ["\ud83d", "\\ud83d", '{"a": "\\\\udc00"}'])
def test_half_of_a_pair_of_surrogates_hides_nothing_and_stops_nothing(half):
    key = PLANTED["AWS Access Key"]
    assert find_secret(half) is None and masked(half) == half
    assert find_secret(f"{half} {key}") == "AWS Access Key" and key not in masked(f"{half} {key}")
