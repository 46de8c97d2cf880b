"""A model of our own as a judge: the assistant's server speaks the API that a judge is asked by."""

import pytest

from finetuning.evaluation.judged import measure
from finetuning.judge.protocol import Pair
from finetuning.progress import Progress
from finetuning.recipe.judge import JudgeSpec
from tests.assistants import served, tiny_source
from tests.judges import judge_by

pytestmark = pytest.mark.long("a model is trained and served")


def test_a_tiny_model_may_be_asked_and_carries_no_verdict(tmp_path):
    choices = [Pair([{"role": "user", "content": f"{n}?"}], "no", f"yes, {n}") for n in range(10)]
    with served(tiny_source(tmp_path / "model", max_position_embeddings=2048)) as server:
        spec = JudgeSpec(endpoint=f"{server.url}/v1", name="tiny", max_tokens=4, parallel=1)
        with judge_by(spec, tmp_path / "judgements", Progress(lambda line: None, "")) as judge:
            found = measure(judge, choices)
    assert found.questions == 20 and found.tokens[0] > 20 and not found.carries_verdict
    assert found.agreement is not None and found.agreement <= 0.5
