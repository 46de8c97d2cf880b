"""Says in one sentence what went wrong between this machine and the hub, and what to do about it."""

import re
from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from finetuning.errors import FinetuningError, InfrastructureError, TransientError, UnknownRepoError
from finetuning.settings import source_token_of, text_of, variable

# A lost connection reaches the caller as any of these: httpx2's own, the builtin one (Xet, `datasets`, offline mode),
# or as a file that is missing from the cache.
UNREACHABLE = (httpx2.TransportError, ConnectionError, TimeoutError, LocalEntryNotFoundError, RevisionResolutionError)
TRANSIENT = (408, 429, 500, 502, 503, 504)  # statuses of a hub that may answer well a moment later
# Xet's client says the status that it got only in words.
XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")


class HubOutage(Exception):
    """The hub failed until the deadline: how often, for how many seconds, and when the next try would have been."""

    def __init__(self, tries: int, seconds: float, wait: float, deadline: float) -> None:
        super().__init__(
            f"Tried {tries} time(s) in {seconds:.0f} s; the next try would come in {wait:.0f} s, and the deadline is "
            f"{deadline:.1f} s (FINETUNING_HUB_DEADLINE). The next run goes on from what has arrived."
        )


def origin(error: Exception) -> Exception:
    """The error that the client met, where it raised another one about the file that it was sending."""
    cause = error.__cause__
    return origin(cause) if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def answered_status(error: Exception) -> int | None:
    """The HTTP status that the hub answered with, None where there was no answer."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    said = XET_STATUS.search(str(error)) if isinstance(error, ConnectionError) else None
    return int(said[1]) if said else None


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed a moment later."""
    status = answered_status(error)
    if status is not None:
        return status in TRANSIENT
    lasting = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, OfflineModeIsEnabled)
    lost = isinstance(error, (httpx2.TransportError, ConnectionError, TimeoutError)) and not isinstance(error, lasting)
    return lost and "CERTIFICATE_VERIFY_FAILED" not in str(error)


@dataclass(frozen=True)
class Asked:
    """What a hub was asked about, and what the answer is explained with."""

    repo_id: str
    endpoint: str
    has_token: bool
    revision: str | None
    setting: str
    """The variable that names the hub's address."""

    @property
    def token(self) -> str:
        """The variable that holds the token for this hub."""
        reads = self.setting == variable("source_hub")
        return source_token_of(text_of("source_hub"), text_of("hub")) if reads else "HF_TOKEN"

    @property
    def given(self) -> str:
        """Whether a token was sent."""
        return "a token was given" if self.has_token else "no token was given"


def explain(
    error: Exception,
    repo_id: str,
    endpoint: str,
    has_token: bool,
    revision: str | None = None,
    setting: str = "FINETUNING_SOURCE_HUB",
) -> FinetuningError:
    """What `error`, which the hub's client raised for `repo_id`, means to the user.

    No text of a client's error is repeated (one about a header holds the token), only what the hub itself answered.

    Args:
        setting: the variable that names the hub: that of the one that is read from, or `FINETUNING_HUB`.

    Raises:
        Exception: `error` itself, where it has nothing to do with the hub.
    """
    if isinstance(error, FinetuningError):
        return error
    if isinstance(error, HubOutage) and isinstance(error.__cause__, Exception):
        return InfrastructureError(
            f"{explain(error.__cause__, repo_id, endpoint, has_token, revision, setting)} {error}"
        )
    error = origin(error)
    found = _explain(error, Asked(repo_id, endpoint, has_token, revision, setting))
    return TransientError(str(found)) if is_transient(error) else found


def _explain(error: Exception, asked: Asked) -> FinetuningError:
    repo_id, endpoint = asked.repo_id, asked.endpoint
    if isinstance(error, (httpx2.LocalProtocolError, UnicodeError)):
        return InfrastructureError(
            f"{asked.token} cannot be sent to {endpoint}: it holds a character that no token has, such as a line break "
            "or a letter with an accent. Set it again."
        )
    if isinstance(error, GatedRepoError):
        return InfrastructureError(
            f"{repo_id} on {endpoint} is gated: its owner decides who may read it. Ask for access at "
            f"{endpoint}/{_path(error, repo_id)} with the account that {asked.token} belongs to ({asked.given})."
        )
    if isinstance(error, RepositoryNotFoundError):
        return UnknownRepoError(
            f"{endpoint} has no {error.repo_type or 'repo'} {repo_id}, or this account may not see it. Check the "
            f"spelling; a private or gated one needs {asked.token} ({asked.given})."
        )
    if isinstance(error, RevisionNotFoundError):
        named = f"revision {asked.revision!r}" if asked.revision else "such revision"
        return FinetuningError(
            f"{repo_id} on {endpoint} has no {named}: name one of its branches or tags, or a full commit hash. "
            f"They are listed at {endpoint}/{_path(error, repo_id)}."
        )
    if isinstance(error, HFValidationError):
        return UnknownRepoError(
            f"{repo_id!r} cannot be the id of a repo; write name or owner/name, of letters, digits, '-', '_' and '.'."
        )
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error.response.status_code, error.server_message, asked)
    if status := answered_status(error):
        return _explain_status(status, "to the upload of large files", asked)
    if isinstance(error, UNREACHABLE):
        kind = type(error.__cause__ or error).__name__
        if asked.setting == variable("hub"):
            advice = "Check the address in FINETUNING_HUB and the network, and run it again."
        else:
            advice = (
                f"Models and data are read from there. Check the network; {asked.setting} names another address, such "
                "as a mirror's, or is local for the hub of this machine. Then run it again."
            )
        return InfrastructureError(f"The hub {endpoint} cannot be reached ({kind}) for {repo_id}. {advice}")
    raise error


def _explain_status(status: int, said: str | None, asked: Asked) -> FinetuningError:
    repo_id, endpoint = asked.repo_id, asked.endpoint
    said = said or "no reason given"
    if status == 401:
        return InfrastructureError(
            f"{endpoint} does not accept the token in {asked.token} for {repo_id} ({said}; {asked.given}). Make a new "
            f"one in the account settings of the hub and set {asked.token}."
        )
    if status == 403:
        return InfrastructureError(
            f"The account of {asked.token} may not do this with {repo_id} on {endpoint} ({said}; {asked.given}). Use "
            "a token with write access, or a repo of your own."
        )
    if status in (409, 412):
        return InfrastructureError(f"{repo_id} on {endpoint} has changed meanwhile ({status}: {said}). Run it again.")
    if status == 429:
        return InfrastructureError(f"{endpoint} has had too many requests from here ({said}). Wait, and run it again.")
    answer = f"{endpoint} answered {status} for {repo_id} ({said})."
    if status >= 500:
        return InfrastructureError(f"{answer} Run it again later.")
    return FinetuningError(f"{answer} Check the repo's id and what it holds.")


def _path(error: RepositoryNotFoundError | RevisionNotFoundError, repo_id: str) -> str:
    return f"datasets/{repo_id}" if error.repo_type == "dataset" else repo_id
