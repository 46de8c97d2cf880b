"""The GPU benchmark on a tiny model and a CPU, and what its records come to."""

import json

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from benchmarks import gpu, gpu_ours, gpu_preparation, gpu_trl
from benchmarks.gpu_comparison import NAMES, compare, figures, nominal_rate
from benchmarks.gpu_jobs import MISTRAL_7B, OUT_OF_MEMORY, ROWS_TRIED, TINY, Preparation
from benchmarks.gpu_recorder import DeviceRecorder, rows_that_fit
from benchmarks.training_comparison import operations_per_token
from finetuning.base_model.loading import is_quantized, load_model
from finetuning.errors import FinetuningError

ON_CPU = ["--device", "cpu", "--tiny"]
H100 = "NVIDIA H100 80GB HBM3"
PREPARED = {
    "device": H100,
    "attention": "flash_attention_3",
    "tokens": 300_000,
    "supervised_tokens": 150_000,
    "block_parameters": 7_000_000_000,
    "head_parameters": 0,
}


def record(speed: float, rate: float = 800e12, **changes) -> dict:
    """Of three steps of 1,000 tokens, the last of which is as fast as that and the others are slow."""
    found = {
        "seconds_to_first_step": 30.0,
        "peak_gb": 60.0,
        "reserved_gb": 64.0,
        "rows_per_pass": 4,
        "operations_per_second": rate,
        "step_ends": [30.0, 90.0, 90.0 + 1_000 / speed],
        "step_tokens": [1_000, 1_000, 1_000],
        "step_positions": [1_000, 1_000, 2_000],
        "losses": [3.0, 2.5, 2.0],
        "versions": {"torch": "2.13.0"},
        **changes,
    }
    return found | figures(found)


without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder in which a tiny model and rows are, and the record of it."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    work = tmp_path_factory.mktemp("work")
    path = work / "record.json"
    gpu_preparation.main(Preparation("tiny", TINY.tokens, False, ["flash_attention_3", "sdpa"], str(work), str(path)))
    return work, json.loads(path.read_text())


def job_in(prepared, folder, side, rows_per_pass=4, **kernel):
    job = gpu.job_of(folder, side, prepared[1] | kernel, gpu.parse(ON_CPU), rows_per_pass)
    return job._replace(rows=str(prepared[0] / "rows"), base_model=str(prepared[0] / "nf4"))


@pytest.mark.long("a preparation and two trainings, each in a process of its own")
def test_the_command_measures_this_project_and_trl_on_the_same_tokens(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "WORK", tmp_path)
    gpu.main([*ON_CPU, "--rounds", "1"])
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    for side in ("ours", "trl"):
        (found,) = result["rounds"][side]
        assert sum(found["step_tokens"]) == result["tokens"] and found["rows_per_pass"] == TINY.rows_per_pass
        assert any(line.startswith(f"| {NAMES[side]} ") for line in printed)
    assert result["mfu"] == pytest.approx(
        result["tokens_per_second"] * result["operations_per_token"] / found_rate(result), rel=0.01
    )
    assert result["ratio_to_trl"] > 0 and result["seconds_to_first_step"] > 0
    assert result["device"] == "CPU" and result["attention"] == "varlen" and result["versions"]["torch"]
    assert list(tmp_path.iterdir()) == []


# Of the children: memory runs out, as torch says it, where a batch has more tokens than that.
STARVED = """
import sys
limit = next((tokens for side, tokens in {limits!r}.items() if f"benchmarks.{{side}}" in sys.orig_argv), None)
if limit is not None:
    import torch
    embed = torch.nn.Embedding.forward
    def hungry(self, ids):
        return embed(self, ids) if ids.numel() <= limit else torch.empty(2**50)
    torch.nn.Embedding.forward = hungry
"""


@pytest.mark.long("a preparation and three trainings, each in a process of its own")
def test_a_side_without_memory_goes_on_with_fewer_rows_or_is_left_out_and_is_marked(tmp_path, monkeypatch, capsys):
    (tmp_path / "site").mkdir()
    limits = {"gpu_ours": 2 * TINY.max_length, "gpu_trl": 0}
    (tmp_path / "site/sitecustomize.py").write_text(STARVED.format(limits=limits))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(gpu, "WORK", tmp_path / "work")
    gpu.main([*ON_CPU, "--rounds", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["out_of_memory"] == {"ours": [4], "trl": [4, 2, 1]}
    (found,) = result["rounds"]["ours"]
    assert found["rows_per_pass"] == 2 and result["tokens_per_second"] > 0 and result["ratio_to_trl"] is None


@pytest.mark.parametrize("side", [gpu_ours, gpu_trl])
def test_a_side_that_has_no_memory_for_a_single_row_says_so_by_its_exit_code(prepared, tmp_path, monkeypatch, side):
    monkeypatch.setattr(torch.nn.Embedding, "forward", lambda self, ids: torch.empty(2**50))
    job = job_in(prepared, tmp_path, "ours" if side is gpu_ours else "trl", rows_per_pass=1)
    assert side.main(job) == OUT_OF_MEMORY and not (tmp_path / "record.json").exists()


def found_rate(result: dict) -> float:
    return result["rounds"]["ours"][0]["operations_per_second"]


def test_nothing_of_a_gpu_and_nothing_of_liger_is_reported_where_there_is_none(prepared, capsys):
    own = {"ours": [record(200, peak_gb=None, reserved_gb=None)], "trl": [record(100, peak_gb=None, reserved_gb=None)]}
    result = compare(own, {**PREPARED, "device": "CPU"})
    assert result["peak_gb"] is result["mfu_nominal"] is result["ratio_to_peer"] is None
    assert "no GPU" in capsys.readouterr().out
    assert gpu.peer_obstacle("cpu") == "its kernels run on GPUs alone"


@pytest.mark.parametrize("side", [gpu_ours, gpu_trl])
def test_packed_rows_have_every_token_and_no_padding(prepared, tmp_path, side):
    job = job_in(prepared, tmp_path, "ours")._replace(packing=True)
    side.main(job)
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["step_tokens"] == found["step_positions"] and sum(found["step_tokens"]) == prepared[1]["tokens"]
    assert len(found["step_ends"]) == -(-prepared[1]["tokens"] // (4 * TINY.max_length))
    assert found["operations_per_second"] > 1e8 and found["peak_gb"] is None


def test_the_model_is_saved_in_nf4_and_the_longest_rows_beside_those_that_are_measured(prepared):
    work, found = prepared
    layers = [m for m in load_model(work / "nf4", device_map={"": "cpu"}).modules() if is_quantized(m)]
    assert len(layers) == 2 * 7 and found["passed_over"] == {
        "flash_attention_3": "needs a CUDA GPU, and none was found"
    }
    with torch.device("meta"):
        whole = MistralForCausalLM(MistralConfig(**TINY.config))
    assert found["parameters"] == whole.num_parameters()
    assert set(lengths(work / "longest")) == {TINY.max_length}
    assert sum(lengths(work / "rows")) == found["tokens"] >= TINY.tokens and len(set(lengths(work / "rows"))) > 10


def lengths(folder) -> list[int]:
    rows = gpu_preparation.pq.read_table(folder / "train.parquet").to_pylist()
    assert all(
        row["labels"] == [-100] * (len(row["labels"]) // 2) + row["input_ids"][len(row["labels"]) // 2 :]
        for row in rows
    )
    return [len(row["input_ids"]) for row in rows]


def test_the_shape_is_that_of_mistral_7b_which_needs_four_operations_a_weight():
    with torch.device("meta"):
        model = MistralForCausalLM(MistralConfig(**MISTRAL_7B.config))
    assert model.num_parameters() == 7_241_732_096
    linear = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear))
    sizes = {"block_parameters": linear, "head_parameters": model.lm_head.weight.numel()}
    operations = operations_per_token({"tokens": 2, "supervised_tokens": 2, **sizes})
    assert 798e12 / operations == pytest.approx(28_500, rel=0.02)


def test_use_of_the_device_is_the_operations_of_tokens_over_those_of_matrix_products(capsys):
    own = {"ours": [record(14_000), record(7_000, 400e12)], "trl": [record(7_000), record(3_500, 400e12)]}
    result = json.loads(json.dumps(compare({**own, "peer": [record(10_000), record(5_000)]}, PREPARED)))
    assert result["mfu"] == pytest.approx(14_000 * 28e9 / 800e12)
    assert result["mfu_nominal"] == pytest.approx(10_500 * 28e9 / 989.4e12, abs=1e-4)
    assert result["ratio_to_trl"] == 2.0 and result["ratio_to_peer"] == 1.4
    assert (result["peak_gb"], result["reserved_gb"]) == (60, 64)
    printed = capsys.readouterr().out
    assert all(f"| {NAMES[side]} " in printed for side in NAMES) and "49.0%" in printed


def test_the_first_two_steps_count_for_nothing_but_the_padding():
    found = record(250)
    assert found["tokens_per_second"] == pytest.approx(250) and found["positions_per_second"] == pytest.approx(500)
    assert found["padding"] == pytest.approx(0.25)


def test_a_device_that_is_not_known_has_no_nominal_peak():
    assert nominal_rate(H100) == 989.4e12 and nominal_rate("NVIDIA H100 PCIe") == 756e12
    assert nominal_rate("NVIDIA L40") is None


def test_rows_are_packed_where_a_flash_kernel_keeps_them_apart_and_never_for_trl_by_itself(prepared, tmp_path):
    jobs = {side: job_in(prepared, tmp_path, side, attention="flash_attention_2") for side in gpu.MODULES}
    assert job_in(prepared, tmp_path, "ours", attention="varlen").packing
    kernels = {side: job.model_kwargs["attn_implementation"] for side, job in jobs.items()}
    assert kernels == {"ours": "flash_attention_2", "trl": "sdpa", "peer": "flash_attention_2"}
    assert {side for side, job in jobs.items() if job.packing} == {"ours", "peer"}
    settings = {side: gpu_trl.settings(jobs[side], 4) for side in ("trl", "peer")}
    assert [settings[side].use_liger_kernel for side in settings] == [False, True]
    assert [settings[side].packing for side in settings] == [False, True]
    assert gpu_ours.training_job(jobs["ours"])["training"]["packing"]
    assert not job_in(prepared, tmp_path, "ours").packing


def test_the_memory_is_tried_with_the_longest_rows(prepared, tmp_path):
    job = gpu.trial(job_in(prepared, tmp_path, "trl", rows_per_pass=ROWS_TRIED), prepared[0])
    gpu_trl.main(job)
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["rows_per_pass"] == ROWS_TRIED and found["step_tokens"] == [ROWS_TRIED * TINY.max_length] * 2


def test_a_pass_has_as_many_rows_as_the_memory_takes():
    tried = []

    def attempt(rows: int) -> None:
        tried.append(rows)
        if rows > 5:
            raise torch.OutOfMemoryError

    assert rows_that_fit(attempt, 16) == 4 and tried == [16, 8, 4]
    with pytest.raises(torch.OutOfMemoryError):
        rows_that_fit(lambda rows: attempt(10), 2)
    with pytest.raises(RuntimeError, match="inconsistent"):
        rows_that_fit(lambda rows: torch.ones(2) @ torch.ones(3), 2)


def test_a_lack_of_memory_that_cublas_tells_of_is_one_too():
    def attempt(rows: int) -> None:
        if rows > 5:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    assert rows_that_fit(attempt, 16) == 4


@without_gpu
def test_without_a_gpu_it_ends_with_one_sentence():
    with pytest.raises(SystemExit, match=r"^No GPU was found: [^.]*\.$"):
        gpu.main([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--device", "cpu"], "add --tiny"), (["--tokens", "1000"], f"take {4 * 2048 * 16} or more")],
)
def test_what_can_not_be_measured_is_a_mistake_in_the_command(arguments, message, capsys):
    with pytest.raises(SystemExit):
        gpu.parse(arguments)
    assert message in capsys.readouterr().err


@without_gpu
def test_a_kernel_that_does_not_run_here_is_named_with_the_reason(tmp_path):
    job = Preparation("tiny", TINY.tokens, False, ["flash_attention_2"], str(tmp_path), str(tmp_path / "record.json"))
    with pytest.raises(FinetuningError, match="flash_attention_2 needs a CUDA GPU, and none was found"):
        gpu_preparation.main(job)


def test_what_a_training_did_before_it_ran_out_of_memory_is_not_on_record(prepared, tmp_path):
    job, recorder = job_in(prepared, tmp_path, "trl")._replace(steps=2), DeviceRecorder(0.0)
    for _ in range(2):
        gpu_trl.train(job, 4, recorder)
        assert len(recorder.steps.ends) == len(recorder.steps.losses) == 2


def test_rows_can_all_have_the_greatest_length():
    rng = gpu_preparation.np.random.default_rng(0)
    assert gpu_preparation.lengths(rng, TINY, 1_000, True) == [128] * 8
