"""The whole deployment, once for each module that asks for it."""

import pytest
import yaml

from tests.deploy.deployment import RECIPE, Deployment
from tests.deploy.postgres import BINARIES, MISSING, postgres

SECRETS = {
    "DAGSTER_PG_PASSWORD": "pg%password/with ä",
    "HF_TOKEN": "hf_RecognisableToken",
    "FINETUNING_SOURCE_TOKEN": "hf_RecognisableSourceToken",
    "FINETUNING_JUDGE_KEY": "RecognisableJudgeKey",
    "AWS_SECRET_ACCESS_KEY": "RecognisableStorageKey",
    "FINETUNING_WEBHOOK": "http://127.0.0.1:9/services/RecognisableWebhook",
}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """Every service of compose.yaml at work on a real PostgreSQL, and a second code location beside its own."""
    if not BINARIES:
        pytest.skip(MISSING)
    with postgres(SECRETS["DAGSTER_PG_PASSWORD"]) as database:
        deployment = Deployment(tmp_path_factory.mktemp("deployment"), database, dict(SECRETS))
        (deployment.root / "recipes" / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
        try:
            for service in ("code", "idle"):
                deployment.start(service)
            # A server that finds a code location out takes its jobs for unknown until it is reloaded.
            for service in ("code", "idle"):
                deployment.becomes_healthy(service)
            for service in ("daemon", "webserver", "viewer"):
                deployment.start(service)
            deployment.becomes_healthy("webserver")
            yield deployment
        finally:
            deployment.stop()
