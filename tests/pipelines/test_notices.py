"""Notices of failed runs, sent to a receiver on loopback as Slack's incoming webhooks take them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from pipelines import notices
from pipelines.notices import NotSent, failure_notice, send

MODELS = dg.StaticPartitionsDefinition(["phi-2"])


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted to it; answers with the next of its statuses, the last one for good."""

    def __init__(self, *statuses):
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses, self.messages, self.asked = list(statuses), [], 0
        self.address = f"http://127.0.0.1:{self.server_port}/services/SECRET"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        assert isinstance(server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.asked += 1
        status = server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0]
        if status == 200:
            server.messages.append(json.loads(body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, format, *args):
        """Print to nobody."""


@pytest.fixture
def receiver(request, monkeypatch):
    server = Receiver(*getattr(request, "param", [200]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(notices, "PAUSE", 0.01)
    yield server
    server.shutdown()
    server.server_close()


@dg.asset(partitions_def=MODELS, check_specs=[dg.AssetCheckSpec("verdict", asset="report", blocking=True)])
def report():
    found = dg.AssetCheckResult(check_name="verdict", passed=False, description="final-answer misses by 0.100")
    return dg.MaterializeResult(check_results=[found])


@dg.asset(partitions_def=MODELS)
def data():
    raise dg.Failure("recipes/phi-2.yaml: dataset: no file matches", allow_retries=False)


def failed(asset):
    """What the sensor makes of a run of this asset, which fails."""
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([asset], partition_key="phi-2", instance=instance, raise_on_error=False)
        assert not run.success
        (event,) = [event for event in run.all_events if event.event_type_value == "PIPELINE_FAILURE"]
        context = dg.build_run_status_sensor_context(
            sensor_name="failure_notice", dagster_event=event, dagster_instance=instance, dagster_run=run.dagster_run
        )
        return run.run_id, failure_notice(context.for_run_failure())


def test_a_failed_step_is_told_with_its_message_and_a_link(receiver, monkeypatch):
    monkeypatch.setenv("FINETUNING_WEBHOOK", receiver.address)
    monkeypatch.setenv("FINETUNING_UI", "http://127.0.0.1:3000/")
    run_id, _ = failed(data)
    (message,) = receiver.messages
    assert set(message) == {"text"}
    assert message["text"].startswith("phi-2 failed (")
    assert "data: recipes/phi-2.yaml: dataset: no file matches" in message["text"]
    assert message["text"].endswith(f"http://127.0.0.1:3000/runs/{run_id}")


def test_a_failed_gate_is_told_as_one_with_the_number_that_missed(receiver, monkeypatch):
    monkeypatch.setenv("FINETUNING_WEBHOOK", receiver.address)
    run_id, _ = failed(report)
    (message,) = receiver.messages
    assert message["text"] == (
        f"phi-2 failed its evaluation: nothing was published.\nverdict: final-answer misses by 0.100\nrun {run_id}"
    )


def test_without_an_address_nobody_is_told_and_the_tick_says_so(monkeypatch):
    monkeypatch.delenv("FINETUNING_WEBHOOK", raising=False)
    _, skipped = failed(data)
    assert isinstance(skipped, dg.SkipReason) and "FINETUNING_WEBHOOK is not set" in str(skipped.skip_message)


@pytest.mark.parametrize("receiver", [[503, 429, 200]], indirect=True)
def test_a_receiver_that_is_down_for_a_moment_hears_of_it_once(receiver):
    send(receiver.address, "phi-2 failed")
    assert receiver.messages == [{"text": "phi-2 failed"}] and receiver.asked == 3


@pytest.mark.parametrize("receiver", [[500]], indirect=True)
def test_a_receiver_that_stays_down_is_named_without_its_secret_address(receiver):
    for address, reason in ((receiver.address, "500"), ("http://127.0.0.1:9/SECRET", "URLError"), ("SECRET", "Value")):
        with pytest.raises(NotSent, match=reason) as error:
            send(address, "phi-2 failed")
        assert "SECRET" not in str(error.value)
        assert error.value.__suppress_context__ or error.value.__context__ is None
