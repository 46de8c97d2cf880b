"""Asks a model behind an API like OpenAI's, and counts every request.

POST {endpoint}/chat/completions {"model": …, "messages": […], "max_tokens": 16, "temperature": 0}
-> {"choices": [{"message": {"content": "A"}}], "usage": {"prompt_tokens": 412, "completion_tokens": 1}}

What may pass (no connection, too many requests, an endpoint that is out) is tried again, after as long as it asks for.
"""

import json
import random
import re
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetuning.errors import InfrastructureError
from finetuning.judge.asker import Reply
from finetuning.judge.protocol import Message
from finetuning.judge.refusals import KEY, busy, no_api, over_budget, refused, unreachable
from finetuning.recipe.judge import JudgeSpec
from finetuning.secrets import masked

TRIES = 5
LONGEST_WAIT = 120.0  # seconds that an endpoint may ask for
SECONDS = 180.0  # of one request, from its first byte to its last
MOST_BYTES = 1 << 20
SHOWN = 200  # characters of what an endpoint said
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Message(_Lenient):
    content: str | None = None


class _Said(_Lenient):
    message: _Message


class _Usage(_Lenient):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(_Lenient):
    choices: list[_Said] = Field(min_length=1)
    usage: _Usage | None = None


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    retry_after: str | None
    body: bytes


class Endpoint:
    """A judge's endpoint, for several threads at once."""

    def __init__(self, spec: JudgeSpec, key: str, first_wait: float = 1.0) -> None:
        """Connect to nothing yet.

        Args:
            first_wait: seconds before the second try, where the endpoint names none; each further one doubles it.

        Raises:
            InfrastructureError: no header can have the key.
        """
        if not (key.isascii() and key.isprintable()) or key != key.strip():
            raise InfrastructureError(f"{KEY}: it has characters that no key has, such as a line's end; set it again.")
        if spec.endpoint is None:
            raise ValueError("evaluation.judge.endpoint is null: a model on this machine has no address")
        self._spec, self._key, self._first_wait = spec, key, first_wait
        self.name, self.where = spec.name, spec.endpoint
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Certificates take a second to read, and plain HTTP has none.
        verify, timeout = self.where.startswith("https://"), httpx2.Timeout(SECONDS, connect=20.0)
        self._client = httpx2.Client(headers=headers, timeout=timeout, verify=verify)
        self._lock, self._resume, self._limit = threading.Lock(), 0.0, "max_tokens"
        self.sent = 0
        """Requests so far, tries again among them."""

    def close(self) -> None:
        """Give up the connections."""
        self._client.close()

    def at_work(self) -> AbstractContextManager[None]:
        """It is there at any time."""
        return nullcontext()

    def ask(self, messages: list[Message]) -> Reply:
        """Return what the model replies.

        Raises:
            FinetuningError: it refuses, cannot be reached, or all requests are used up.
        """
        tries = 0
        while True:
            limit = self._begin()
            tries += 1
            try:
                answer = self._post(messages, limit)
            except (httpx2.TransportError, TimeoutError) as error:
                if tries == TRIES:
                    raise unreachable(self._spec, error, tries) from None
                self._pause(self._backoff(tries))
                continue
            if answer.status == 200:
                return self._read(answer.body)
            said = self._shown(answer.body)
            if answer.status == 400 and limit == "max_tokens" and "max_completion_tokens" in said:
                self._limit, tries = "max_completion_tokens", tries - 1  # OpenAI's newer models take no other name
                continue
            if answer.status not in AGAIN or "insufficient_quota" in said:
                raise refused(self._spec, answer.status, said, bool(self._key))
            asked = seconds_in(answer.retry_after)
            if tries == TRIES or (asked or 0) > LONGEST_WAIT:
                raise busy(self._spec, answer.status, said, asked)
            self._pause(self._backoff(tries) if asked is None else asked)

    def _begin(self) -> str:
        """Wait until a request may be sent, and count it; return the name of the limit of tokens."""
        while (wait := self._resume - time.monotonic()) > 0:  # another thread may have been asked to wait longer
            time.sleep(wait)
        with self._lock:
            if self.sent >= self._spec.max_requests:
                raise over_budget(self._spec)
            self.sent += 1
            return self._limit

    def _pause(self, seconds: float) -> None:
        """Keep all threads from asking for so long."""
        with self._lock:
            self._resume = max(self._resume, time.monotonic() + seconds)

    def _backoff(self, tries: int) -> float:
        return self._first_wait * 2 ** (tries - 1) * random.uniform(1.0, 1.25)

    def _post(self, messages: list[Message], limit: str) -> Answer:
        spec = self._spec
        asked = {"model": spec.name, "messages": messages, limit: spec.max_tokens}
        if spec.temperature is not None:
            asked["temperature"] = spec.temperature
        # Half of a character, which a model may write, is no text that can be sent.
        content = json.dumps(asked, ensure_ascii=False).encode(errors="replace")
        headers = {"Content-Type": "application/json"}
        until, body = time.monotonic() + SECONDS, bytearray()
        with self._client.stream(
            "POST", f"{self.where}/chat/completions", content=content, headers=headers
        ) as response:
            for part in response.iter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise no_api(spec, f"more than {MOST_BYTES:,} bytes")
                if time.monotonic() > until:
                    raise TimeoutError
            return Answer(response.status_code, response.headers.get("retry-after"), bytes(body))

    def _read(self, body: bytes) -> Reply:
        try:
            found = _Completion.model_validate_json(body)
        except ValidationError:
            raise no_api(self._spec, self._shown(body)) from None
        usage = found.usage or _Usage()
        return Reply(found.choices[0].message.content or "", (usage.prompt_tokens, usage.completion_tokens))

    def _shown(self, body: bytes) -> str:
        """The beginning of what the endpoint said, on one line, without the key or any other secret."""
        return self.without_key(" ".join(body.decode(errors="replace").split()))[:SHOWN] or "nothing"

    def without_key(self, text: str) -> str:
        """Return the text without the key, which an endpoint may repeat, and without other secrets."""
        return masked(text.replace(self._key, "[key]") if self._key else text)


def seconds_in(retry_after: str | None) -> float | None:
    """Return the seconds that a header Retry-After asks for, as a number or a date; None where it says neither."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", retry_after.strip()):
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)
