from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
from huggingface_hub.utils import get_session, hf_raise_for_status

from finetuning.hub_errors import HubOutage
from resources.hub_client.retries import Patience, SingleTryClient, seconds_to_wait, single_tries

LOST = httpx2.ReadError("reset", request=httpx2.Request("GET", "https://hub.example/api/models/owner/name?key=hidden"))


def busy(**headers: str) -> Exception:
    """The error of the hub's client when the hub answers 429."""
    request = httpx2.Request("GET", "https://hub.example/api")
    with pytest.raises(Exception) as error:
        hf_raise_for_status(httpx2.Response(429, headers=headers, request=request))
    return error.value


def failing(times: int, error: Exception):
    """Something that raises `error` that often, and then returns how often it was tried."""
    tries = []

    def act() -> int:
        tries.append(1)
        if len(tries) <= times:
            raise error
        return len(tries)

    return act


def test_the_waits_grow_and_are_drawn():
    for tried in range(1, 12):
        drawn = {seconds_to_wait(LOST, tried, 1.0) for _ in range(50)}
        longest = min(2 ** (tried - 1), 64)
        assert len(drawn) > 1 and longest / 2 <= min(drawn) and max(drawn) <= longest


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 55),
        ({"RateLimit": '"api";r=9;t=55'}, 0),
        ({"Retry-After": "soon"}, 0),
        ({}, 0),
    ],
)
def test_the_hub_says_how_long_to_wait_in_seconds_or_as_a_window(headers, seconds):
    assert seconds_to_wait(busy(**headers), 1, 0.001) == pytest.approx(seconds, abs=1.5)


def test_the_hub_says_how_long_to_wait_as_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert seconds_to_wait(busy(**{"Retry-After": date}), 1, 0.001) == pytest.approx(89, abs=1.5)


def test_each_further_try_is_one_line_with_what_was_asked_and_no_secret():
    said = []
    assert Patience(60, 0.001, said.append)(failing(2, LOST)) == 3
    assert [line.split(" (try")[0] for line in said] == [
        "hub: GET /api/models/owner/name: ReadError; trying again in 0.0 s"
    ] * 2
    assert "(try 3, 60 s left)" in said[1] and "hidden" not in "".join(said)


def test_the_deadline_is_one_for_all_that_is_asked():
    ask = Patience(0.2, 0.1, lambda said: None)
    ask(failing(1, LOST))
    with pytest.raises(HubOutage) as outage:
        ask(failing(9, LOST))
    assert outage.value.__cause__ is LOST


def test_what_does_not_pass_is_raised_at_once():
    ask, act = Patience(60, 1, pytest.fail), failing(1, KeyError("a fault"))
    with pytest.raises(KeyError):
        ask(act)


def test_within_the_block_alone_the_hubs_client_tries_once():
    before = type(get_session())
    with single_tries(3):
        assert type(get_session()) is SingleTryClient
    assert type(get_session()) is before is not SingleTryClient
