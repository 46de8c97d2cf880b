import httpx2
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import hf_raise_for_status

from finetuning.errors import FinetuningError, TransientError
from finetuning.hub_errors import HubOutage, explain, is_transient

HUB = "https://hub.example"
TOKEN = "hf_verysecret"


def answered(status: int, message: str, code: str = "", path: str = "/api/datasets/owner/data") -> Exception:
    """The error that the hub's client raises when the hub answers so."""
    request = httpx2.Request("GET", HUB + path, headers={"authorization": f"Bearer {TOKEN}"})
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    with pytest.raises(Exception) as error:
        hf_raise_for_status(httpx2.Response(status, headers=headers, request=request))
    return error.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answered(404, "Repository not found", "RepoNotFound"), ["has no dataset owner/data", "a token was given"]),
        (answered(401, "Repository not found"), ["has no dataset owner/data", "HF_TOKEN"]),
        (
            answered(401, "Invalid credentials in Authorization header"),
            ["does not accept the token in HF_TOKEN", "Invalid credentials", "Make a new one"],
        ),
        (answered(403, "Access is restricted", "GatedRepo"), ["is gated", f"{HUB}/datasets/owner/data"]),
        (answered(403, "Read-only token"), ["may not do this with owner/data", "Read-only token", "write access"]),
        (answered(404, "Invalid rev", "RevisionNotFound"), ["has no revision 'v9'", "branches or tags"]),
        (answered(412, "main was moved"), ["has changed meanwhile", "main was moved"]),
        (answered(429, "Slow down"), ["too many requests", "Wait"]),
        (answered(503, "Down for maintenance"), ["answered 503", "Down for maintenance", "later"]),
        (answered(400, "Bad file name"), ["answered 400", "Bad file name"]),
        (httpx2.ConnectError("refused"), ["cannot be reached", "ConnectError", "FINETUNING_SOURCE_HUB", "mirror"]),
        (httpx2.ReadTimeout("slow"), ["cannot be reached", "ReadTimeout"]),
        (ConnectionError("lost"), ["cannot be reached"]),
        (LocalEntryNotFoundError("offline"), ["cannot be reached"]),
        (HFValidationError("Repo id must be …"), ["'owner/data' cannot be the id of a repo"]),
        (httpx2.LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}'"), ["HF_TOKEN cannot be sent"]),
        (UnicodeEncodeError("ascii", TOKEN, 0, 1, "ordinal not in range"), ["HF_TOKEN cannot be sent"]),
    ],
)
def test_an_error_of_the_hub_says_what_happened_where_and_what_to_do(error, words):
    found = explain(error, "owner/data", HUB, has_token=True, revision="v9")
    assert isinstance(found, FinetuningError)
    for word in [HUB, *words] if not isinstance(error, HFValidationError) else words:
        assert word in str(found)


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (answered(503, "Down"), True),
        (answered(429, "Slow down"), True),
        (httpx2.ConnectError("refused"), True),
        (answered(401, "No"), False),
        (answered(404, "No", "RepoNotFound"), False),
        (answered(412, "Changed"), False),
        (HubOutage(3, 600.0, 60.0, 600.0), False),
    ],
    ids=str,
)
def test_what_may_be_over_a_moment_later_can_be_tried_again_unless_that_was_done(error, passing):
    error.__cause__ = httpx2.ConnectError("refused") if isinstance(error, HubOutage) else None
    found = explain(error, "owner/data", HUB, has_token=True)
    assert isinstance(found, TransientError) is passing and isinstance(found, FinetuningError)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412, 503])
def test_whether_there_was_a_token_is_said_and_the_token_is_not(status):
    error = answered(status, "No", "RepoNotFound" if status == 404 else "")
    assert TOKEN not in str(explain(error, "owner/data", HUB, has_token=True))
    if status in (401, 403, 404):
        assert "no token was given" in str(explain(error, "owner/data", HUB, has_token=False))


def test_a_revision_that_the_caller_does_not_name_is_not_made_up():
    error = answered(404, "Invalid rev", "RevisionNotFound")
    assert "has no such revision" in str(explain(error, "owner/data", HUB, has_token=True))


def test_a_mistake_that_is_explained_already_stays_as_it_is():
    mistake = FinetuningError("explained")
    assert explain(mistake, "owner/data", HUB, has_token=True) is mistake


def test_an_error_that_is_not_the_hubs_is_raised_again():
    with pytest.raises(KeyError, match="a fault"):
        explain(KeyError("a fault"), "owner/data", HUB, has_token=True)


XET = "Server error: Request error: HTTP status {} error ({}), domain: http://hub.example/_cas/v1/shards"


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        *((answered(status, "Later"), True) for status in (408, 429, 500, 502, 503, 504)),
        *((answered(status, "No"), False) for status in (400, 401, 403, 404, 409, 412, 501)),
        (httpx2.ReadTimeout("slow"), True),
        (httpx2.ReadError("reset"), True),
        (httpx2.RemoteProtocolError("peer closed connection"), True),
        (httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"), False),
        (httpx2.LocalProtocolError("Illegal header value"), False),
        (httpx2.UnsupportedProtocol("ftp"), False),
        (ConnectionError("Network error: error sending request"), True),
        (ConnectionError(XET.format("server", "503 Service Unavailable")), True),
        (ConnectionError(XET.format("client", "429 Too Many Requests")), True),
        (ConnectionError(XET.format("client", "401 Unauthorized")), False),
        (TimeoutError("Timeout: error decoding response body"), True),
        (OfflineModeIsEnabled("offline"), False),
        (FileNotFoundError("config.json"), False),
        (KeyError("a fault"), False),
    ],
)
def test_what_passes_is_told_from_what_stays(error, transient):
    assert is_transient(error) is transient


def test_a_refusal_of_xets_own_server_is_no_lost_connection():
    error = ConnectionError(XET.format("client", "403 Forbidden"))
    assert "may not do this with owner/data" in str(explain(error, "owner/data", HUB, has_token=True))


def test_the_error_about_a_file_is_explained_by_what_happened_to_it():
    error = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    error.__cause__ = answered(403, "Read-only token")
    assert "Read-only token" in str(explain(error, "owner/data", HUB, has_token=True))


def test_an_outage_says_what_came_last_and_how_long_it_was_waited_for():
    outage = HubOutage(tries=7, seconds=590.2, wait=64.1, deadline=600.0)
    outage.__cause__ = answered(503, "Down for maintenance")
    said = str(explain(outage, "owner/data", HUB, has_token=True))
    for words in (
        "answered 503",
        "Tried 7 time(s) in 590 s",
        "600.0 s (FINETUNING_HUB_DEADLINE)",
        "The next run goes on",
    ):
        assert words in said
