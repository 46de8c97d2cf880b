"""Tells somebody of runs that failed, and of models that failed their gate: JSON as Slack takes it, to a webhook."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from urllib.parse import urlsplit

import dagster as dg

WEBHOOK = "FINETUNING_WEBHOOK"
UI = "FINETUNING_UI"
TRIES, TIMEOUT = 3, 10.0  # seconds
LONGEST = 1500  # characters of a reason
PAUSE = 1.0  # seconds after the first try; twice as long after each other


class NotSent(Exception):
    """The webhook did not take the notice; the text names its host alone, as its address is a secret."""


@dg.run_failure_sensor(
    minimum_interval_seconds=15,
    description=f"Posts what failed, and why, to the address in {WEBHOOK} (Slack's incoming webhooks and all that take "
    "the same JSON).",
)
def failure_notice(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """One message a failed run."""
    address = os.environ.get(WEBHOOK)
    if not address:
        return dg.SkipReason(f"{WEBHOOK} is not set: nobody is told of run {context.dagster_run.run_id}")
    send(address, notice(context.dagster_run, failed_checks(context), failures(context)))
    return None


def notice(run: dg.DagsterRun, checks: Iterable[str], failures: Iterable[str]) -> str:
    """What is posted of a run: the model, what happened to it, and where to look."""
    partition, checks = run.tags.get("dagster/partition", "no partition"), list(checks)
    gate = any(check.startswith("verdict:") for check in checks)
    what = "failed its gate: nothing was published" if gate else f"failed ({run.job_name})"
    where = f"{os.environ[UI].rstrip('/')}/runs/{run.run_id}" if os.environ.get(UI) else f"run {run.run_id}"
    return "\n".join([f"{partition} {what}.", *(checks or failures), where])


def failed_checks(context: dg.RunFailureSensorContext) -> list[str]:
    """Each blocking check of the run that failed, with its reason."""
    records = context.instance.get_records_for_run(
        context.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    events = [record.event_log_entry.dagster_event for record in records]
    found = [event.asset_check_evaluation_data for event in events if event]
    return [
        shortened(f"{check.check_name}: {check.description or 'failed'}")
        for check in found
        if not check.passed and check.blocking
    ]


def failures(context: dg.RunFailureSensorContext) -> list[str]:
    """Each step that failed, with its message."""
    said = []
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        own = data.user_failure_data.description if data.user_failure_data else None
        said.append(shortened(f"{event.step_key}: {own or (data.error.message.strip() if data.error else 'failed')}"))
    return said or [shortened(context.failure_event.message or "no reason was given")]


def shortened(text: str) -> str:
    """`text`, or the beginning of a long one."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def send(address: str, text: str) -> None:
    """Nothing; the webhook took the message.

    Raises:
        NotSent: it did not, in three tries.
    """
    body = json.dumps({"text": text}).encode()
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
