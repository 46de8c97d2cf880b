"""Post failed runs, and models that failed their evaluation, to a webhook, as JSON that Slack reads."""

import html
import json
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import dagster as dg

from finetuning.errors import GATE
from finetuning.settings import Settings, variable
from pipelines.outcomes import Outcome, outcome_of

WEBHOOK = variable("webhook")
TRIES, TIMEOUT = 3, 10.0  # seconds
PAUSE = 1.0  # seconds after the first try; twice as long after each other
LONGEST = 1500  # characters of a reason


class NotSent(Exception):
    """The webhook refused the notice or was out; the text names its host alone, as its address is a secret."""


@dg.run_failure_sensor(
    minimum_interval_seconds=15,
    description=f"Posts what failed, and why, to the address in {WEBHOOK} (Slack's incoming webhooks and all that take "
    "the same JSON).",
)
def failure_notice(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """Post one message for each failed run, where a webhook is set."""
    address = Settings.read("webhook").webhook
    if not address:
        return dg.SkipReason(f"{WEBHOOK} is not set: nobody is told of run {context.dagster_run.run_id}")
    send(address, notice(context.dagster_run, outcome_of(context.instance, context.dagster_run)))
    return None


def notice(run: dg.DagsterRun, outcome: Outcome) -> str:
    """Return the text for a run: the model, what happened to it, and where to look."""
    partition = run.tags.get("dagster/partition", "no partition")
    what = "failed its evaluation: nothing was published" if outcome.kind == GATE else f"failed ({run.job_name})"
    ui = Settings.read("ui").ui.rstrip("/")
    where = f"{ui}/runs/{run.run_id}" if ui else f"run {run.run_id}"
    return "\n".join([f"{partition} {what}.", *map(shortened, outcome.reasons), where])


def shortened(text: str) -> str:
    """Return the text, or the beginning of a long one: a chat shows no pages."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def send(address: str, text: str) -> None:
    """Post the text to the webhook, in up to three tries.

    Raises:
        NotSent: the webhook took none of them.
    """
    # In Slack's text these three begin links and other markup, which models' tokens look like.
    body = json.dumps({"text": html.escape(text, quote=False)}).encode()
    reason = ""
    for attempt in range(TRIES):
        try:
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                return
        except (OSError, ValueError) as error:  # HTTP errors are OSErrors; an address that is none is a ValueError
            reason = f"{error.code}" if isinstance(error, urllib.error.HTTPError) else type(error).__name__
        if attempt + 1 < TRIES:
            time.sleep(PAUSE * 2**attempt)
    raise NotSent(f"the webhook at {urlsplit(address).hostname} took no notice in {TRIES} tries: {reason}")
