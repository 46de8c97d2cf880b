"""Asks the hub again after a failure that passes, until a deadline, and says so each time.

ask = Patience(seconds=600, pause=1, log=print)
ask(lambda: api.repo_info("owner/name"))
# hub: GET /api/models/owner/name: 503 Service Unavailable; trying again in 0.8 s (try 2, 600 s left)
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status, parse_ratelimit_headers
from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook
from huggingface_hub.utils._xet import abort_xet_session

from finetuning.hub_errors import TRANSIENT, HubOutage, answered_status, is_transient, origin

T = TypeVar("T")
CONNECT_SECONDS = 10.0
DOUBLINGS = 6  # of the wait, which is then about a minute after a first of one second


class Patience:
    """Carries out what may be carried out twice, again after each failure that passes, for `seconds` from now.

    The first wait is about `pause` seconds, each one after it twice as long, unless the hub says when to come back.
    """

    def __init__(self, seconds: float, pause: float, log: Callable[[str], None]) -> None:
        self.seconds, self.pause, self.log = seconds, pause, log
        self.start = time.monotonic()

    def __call__(self, act: Callable[[], T]) -> T:
        """What `act` returns in the end.

        Raises:
            HubOutage: it failed until the deadline.
            Exception: it failed in a way that does not pass.
        """
        tried = 0
        while True:
            tried += 1
            try:
                return act()
            except Exception as error:
                reason = origin(error)
                if not is_transient(reason):
                    raise
                wait = self._wait(reason, tried)
            time.sleep(wait)

    def _wait(self, error: Exception, tried: int) -> float:
        wait, spent = seconds_to_wait(error, tried, self.pause), time.monotonic() - self.start
        if spent + wait >= self.seconds:
            raise HubOutage(tried, spent, wait, self.seconds) from error
        self.log(
            f"hub: {_asked(error)}: {_answered(error)}; trying again in {wait:.1f} s "
            f"(try {tried + 1}, {self.seconds - spent:.0f} s left)"
        )
        return wait


class SingleTryClient(httpx2.Client):
    """Sends each request once, and waits for an answer no longer than `seconds`.

    The hub's own client would try some requests again by itself, unseen and for as long as it likes, and others never;
    here all failures come out at once, and whoever asked decides.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        timeout = httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        super().__init__(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=timeout)

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        # Some calls of the hub's client ask for no limit of time.
        request.extensions = {**request.extensions, "timeout": self.timeout.as_dict()}
        try:
            response = super().send(request, stream=True, **options)
            if not stream or response.status_code in TRANSIENT:
                _read(response, self.seconds)
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            # Of a class that the hub's client knows nothing to do about.
            raise httpx2.TransportError(f"{type(error).__name__}: {error}", request=request) from error
        if response.status_code in TRANSIENT:
            hf_raise_for_status(response)
        return response


@contextmanager
def single_tries(seconds: float) -> Iterator[None]:
    """Within the block, let the hub's client send each request once, and wait that long for its answer."""
    set_client_factory(lambda: SingleTryClient(seconds))
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """End an upload over Xet that takes longer than that, since some of its requests would wait for ever.

    Raises:
        TimeoutError: it took longer.
    """
    late = threading.Event()

    def stop() -> None:
        late.set()
        abort_xet_session()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield
    except RuntimeError:
        if not late.is_set():
            raise
        raise TimeoutError(f"large files were not sent within {seconds:.0f} s") from None
    finally:
        timer.cancel()


def seconds_to_wait(error: Exception, tried: int, pause: float) -> float:
    """Return the seconds until the next try after `tried` ones: what the hub asks for, or a drawn time that grows."""
    # Drawn, so that many who failed at the same moment do not come back at the same moment.
    backoff = pause * 2 ** min(tried - 1, DOUBLINGS) * random.uniform(0.5, 1.0)
    return max(backoff, _asked_for(error.response.headers) if isinstance(error, HfHubHTTPError) else 0.0)


def _asked_for(headers: httpx2.Headers) -> float:
    """Return the seconds that the hub asks to wait: a number, a date (RFC 9110, 10.2.3), or a rate limit's window."""
    asked = headers.get("retry-after", "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        return (parsedate_to_datetime(asked).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except ValueError:
        limit = parse_ratelimit_headers(headers)
        return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else 0.0


def _read(response: httpx2.Response, seconds: float) -> None:
    """Read the body in that time: the client's own timeout would let it come byte by byte for ever."""
    response.stream = _TimelyStream(response.stream, time.monotonic() + seconds)
    try:
        response.read()
    finally:
        response.close()


class _TimelyStream(httpx2.SyncByteStream):
    def __init__(self, stream: Any, end: float) -> None:
        self.stream, self.end = stream, end

    def __iter__(self) -> Iterator[bytes]:
        for part in self.stream:
            if time.monotonic() > self.end:
                raise httpx2.ReadTimeout("the answer comes too slowly")
            yield part

    def close(self) -> None:
        self.stream.close()


def _asked(error: Exception) -> str:
    asked = error.response if isinstance(error, HfHubHTTPError) else error
    if isinstance(asked, (httpx2.Response, httpx2.TransportError)):
        return f"{asked.request.method} {asked.request.url.path}"
    return "upload of large files"  # Xet's client is the only one that says no more than in words


def _answered(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"{error.response.status_code} {error.response.reason_phrase}"
    return str(answered_status(error) or type(error.__cause__ or error).__name__)
