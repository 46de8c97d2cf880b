"""A model is gone before the next one is loaded: two of them need not have room."""

import gc
import weakref

import pytest

from finetuning.base_model import loading
from finetuning.base_model.quantized_base_model import quantize
from finetuning.evaluation import benchmark_scores
from finetuning.evaluation.exam import Candidate, Exam, sit
from finetuning.evaluation.generation import Question
from finetuning.merge.merged_model import Parts, merge
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.recipe.merge import MergeSpec
from tests.finetuning.merge.test_merged_model import QUIET, trained
from tests.tiny_models import ZEPHYR, save_tiny_model

QUANTIZED = {"bits": 4}


@pytest.fixture
def alive(monkeypatch):
    """A function that gives the bytes of the weights that live of all models that were loaded; and these, load by load.

    Python does not look for circles by itself meanwhile.
    """
    storages, before = weakref.WeakSet(), []
    load = loading.load_with_report

    def bytes_alive() -> int:
        return sum(storage.nbytes() for storage in storages)

    def noting(*args, **kwargs):
        before.append(bytes_alive())
        model, report = load(*args, **kwargs)
        storages.update(tensor.untyped_storage() for tensor in model.state_dict(keep_vars=True).values())
        return model, report

    monkeypatch.setattr(loading, "load_with_report", noting)
    gc.collect()
    gc.disable()
    yield bytes_alive, before
    gc.enable()


def exam_of(folder):
    from transformers import AutoTokenizer

    ids = [[5, 9, 11, 30, 2], [7, 8, 9, 2]]
    labels = [[-100, -100, *row[2:]] for row in ids]
    questions = [Question(str(i), [], row[:2], "") for i, row in enumerate(ids)]
    return Exam(AutoTokenizer.from_pretrained(folder), questions, ids, labels)


@pytest.mark.parametrize("spare", [0.0, 0.5], ids=["computing in 4 bits", "written out"])
def test_base_and_tuned_model_are_never_held_together(tmp_path, monkeypatch, alive, spare):
    base, adapter, kwargs = trained(tmp_path, "LoRA", QUANTIZED)
    gc.collect()
    bytes_alive, before = alive
    before.clear()
    monkeypatch.setattr(loading, "SPARE_MEMORY", spare)
    spec = EvaluationSpec(metrics=("loss", "exact-match"), max_new_tokens=4)
    for name, own in (("base", None), ("tuned", adapter)):
        sit(spec, exam_of(tmp_path / "tokenizer"), Candidate(name, base, own, kwargs), QUIET, tmp_path)
        assert bytes_alive() == 0, f"weights of {name} are left"
    assert before == [0, 0]


def test_a_model_that_was_asked_benchmarks_is_gone(tmp_path, monkeypatch, alive):
    folder = save_tiny_model("smollm2-135m", tmp_path, ZEPHYR)
    spec = BaseModelSpec.model_validate({"repo": str(folder), "quantization": QUANTIZED, "dtype": "float32"})
    kwargs = {"dtype": "float32", "device_map": {"": "cpu"}, "trust_remote_code": False}
    quantize(spec, folder, tmp_path / "base", kwargs, "tiny")
    bytes_alive, _ = alive
    assert bytes_alive() == 0
    monkeypatch.setattr(benchmark_scores, "ask", lambda *_: benchmark_scores.pd.DataFrame({"benchmark": ["made up"]}))
    candidate = Candidate("base", tmp_path / "base", None, kwargs)
    benchmark_scores.sit_benchmarks(EvaluationSpec(), {}, exam_of(folder), candidate, QUIET, tmp_path)
    assert bytes_alive() == 0


def test_of_the_models_that_a_merge_compares_one_is_held_at_a_time(tmp_path, alive):
    base, adapter, kwargs = trained(tmp_path, "LoRA", QUANTIZED)
    gc.collect()
    bytes_alive, before = alive
    before.clear()
    merge(Parts(base, adapter, tmp_path, kwargs), tmp_path / "merged", "tiny", MergeSpec(dtype="float32"), QUIET)
    assert before == [0, 0, 0] and bytes_alive() == 0
