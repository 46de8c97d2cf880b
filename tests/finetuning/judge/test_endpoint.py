"""An endpoint that is out, slow, full, strict or no API at all: what is tried again, what is not, and what is said."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from finetuning.errors import FinetuningError, InfrastructureError, TransientError
from finetuning.judge import endpoint as module
from finetuning.judge.endpoint import TRIES, Endpoint, seconds_in
from finetuning.judge.protocol import Pair, question
from tests.judges import Said, judging

KEY = "judge-key-0123456789"
ASKED = question(Pair([{"role": "user", "content": "2 + 3?"}], "5", "6"), False)


class Script:
    """Says one thing after another; the last one again and again."""

    def __init__(self, *said):
        self.said = [*said]

    def __call__(self, asked):
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]


def ask(server, key=KEY, **spec):
    asked = Endpoint(server.spec(**spec), key, first_wait=0.01)
    try:
        return asked.ask(ASKED)
    finally:
        asked.close()


def test_a_question_is_sent_as_openais_api_has_it():
    with judging(lambda asked: "A" if asked.a == "5" else "B") as server:
        assert ask(server, max_tokens=7) == ("A", (100, 1))
    sent = server.bodies[0]
    assert sent["path"] == "/v1/chat/completions" and server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("fake", 7, 0.0)


def test_nothing_is_sent_of_a_key_or_temperature_that_there_is_not():
    with judging(lambda asked: "A") as server:
        ask(server, key="", temperature=None)
    assert "Authorization" not in server.headers[0] and "temperature" not in server.bodies[0]


@pytest.mark.parametrize(
    "fault", [Said(status=503), Said(status=429, headers={"Retry-After": "0"}), Said(drop=True), Said(status=500)]
)
def test_what_may_pass_is_tried_again(fault):
    with judging(Script(fault, fault, "B")) as server:
        assert ask(server).text == "B"
    assert server.requests == 3


def test_an_endpoint_that_asks_to_wait_is_left_alone_for_so_long():
    with judging(Script(Said(status=429, headers={"Retry-After": "1"}), "B")) as server:
        started = time.monotonic()
        assert ask(server).text == "B"
    assert time.monotonic() - started >= 1


def test_a_wait_is_a_number_or_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    assert seconds_in("2.5") == 2.5 and 25 < seconds_in(later) <= 30
    assert seconds_in("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert [seconds_in(text) for text in (None, "soon", "nan", "-3", "")] == [None] * 5


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Said(status=503), "answers 503"),
        (Said(status=429, headers={"Retry-After": "3600"}), "asks to wait 3600 s"),
        (Said(drop=True), r"cannot be reached \(RemoteProtocolError\), in 5 tries"),
    ],
)
def test_what_does_not_pass_may_be_tried_by_a_later_run(fault, told):
    with judging(lambda asked: fault) as server, pytest.raises(TransientError, match=told):
        ask(server)
    assert server.requests == (1 if "3600" in told else TRIES)


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (401, b"no such key", InfrastructureError, r"does not accept the key \(401: no such key; FINETUNING_JUDGE_KEY"),
        (403, b"not yours", InfrastructureError, "does not accept the key"),
        (402, b"", InfrastructureError, "has no credit left"),
        (429, b'{"error": {"code": "insufficient_quota"}}', InfrastructureError, "has no credit left"),
        (404, b"unknown model", FinetuningError, "the model 'fake' is not there"),
        (400, b"temperature must be 1", FinetuningError, "write temperature: null"),
        (422, b"too long", FinetuningError, r"refuses the question to 'fake' \(422: too long\)"),
        (307, b"", FinetuningError, r"sends requests elsewhere \(307\)"),
        (200, b"<html>Log in</html>", FinetuningError, r"not as OpenAI's API does \(<html>Log in</html>\)"),
        (200, b'{"choices": []}', FinetuningError, "not as OpenAI's API does"),
    ],
)
def test_what_would_be_refused_again_is_not_tried_again(status, body, kind, told):
    said = Said(status=status, body=body, headers={"Location": "http://127.0.0.1:9/"} if status == 307 else {})
    with judging(lambda asked: said) as server, pytest.raises(kind, match=told) as raised:
        ask(server)
    assert server.requests == 1 and not isinstance(raised.value, TransientError)


def test_a_key_that_the_endpoint_repeats_is_in_no_message():
    said = Said(status=401, body=f"Incorrect API key provided: {KEY}".encode())
    with judging(lambda asked: said) as server, pytest.raises(InfrastructureError, match=r"\[key\]") as raised:
        ask(server)
    assert KEY not in str(raised.value) and "is set" in str(raised.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", "schlüssel", f" {KEY}", "a\x00b"])
def test_a_key_that_no_header_can_have_is_refused_unseen(key):
    with (
        judging(lambda asked: "A") as server,
        pytest.raises(InfrastructureError, match="FINETUNING_JUDGE_KEY") as raised,
    ):
        ask(server, key=key)
    assert key not in str(raised.value) and not server.requests


def test_models_that_take_another_name_for_the_limit_are_asked_by_it():
    refuses = Said(status=400, body=b"Unsupported parameter: use 'max_completion_tokens' instead.")
    with judging(Script(refuses, "A")) as server:
        assert ask(server).text == "A"
    assert "max_completion_tokens" in server.bodies[1] and "max_tokens" not in server.bodies[1]


def test_tries_count_and_no_request_is_made_beyond_the_limit():
    with judging(lambda asked: Said(status=503)) as server, pytest.raises(FinetuningError, match="all 3 requests"):
        ask(server, max_requests=3)
    assert server.requests == 3


def test_an_answer_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with judging(lambda asked: "A" * 2000) as server, pytest.raises(FinetuningError, match="more than 1,000 bytes"):
        ask(server)


def test_a_reply_of_nothing_is_no_fault():
    with judging(lambda asked: Said(reply=None)) as server:
        assert ask(server).text == ""
