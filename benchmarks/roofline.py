"""How fast a step could be on a GPU, computed without one: the table of `docs/gpu.md`.

`python -m benchmarks.roofline` prints it, and `--write` puts it there. The project's own trainer is run by shapes alone
(`tests/fake_gpu`) on two layers of Mistral-7B and on four, which tell what all 32 do. Each kernel takes as long as its
operations or the bytes that it reads and makes do, whichever is longer, at rates that are assumed; attention, whose
bytes are few, takes as long as its operations. How long the host takes to start the kernels is not in it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from finetuning.memory.savings import with_settings
from finetuning.recipe.loading import load
from tests.fake_gpu.traces import Trace, Training, fake_gpu

PAGE = Path(__file__).parents[1] / "docs/gpu.md"
BEGIN, END = "<!-- from benchmarks.roofline -->\n", "<!-- end of benchmarks.roofline -->"
MODEL = "mistral-7b-fennec"
FEW, MORE, ALL = 2, 4, 32  # layers
WIDTH = 4096  # of all heads together
PHASES = ("step 2", "optimizer 2")


class Rates(NamedTuple):
    """What a GPU does in a second, of what its maker states about 0.7 and 0.8."""

    operations: float
    """Of products of bfloat16."""
    bytes: float
    attention: float = 0.6
    """Share of these operations that an attention kernel reaches."""


GPUS = {"H100": Rates(700e12, 2.7e12), "4090": Rates(150e12, 0.85e12)}


class Case(NamedTuple):
    """One line of the table."""

    name: str
    rows: int = 4
    length: int = 2048
    dropout: float = 0.05
    checkpointing: bool = False
    fuses: bool = True
    writes_weights_out: bool = False

    def training(self, layers: int) -> Training:
        """What is traced."""
        # Imports torch, which the process with the fake GPU, that begins with an import of this file, must not do yet.
        from tests.fake_gpu.models import config_of

        settings = {
            "lora.r": 16,
            "lora.lora_dropout": self.dropout,
            "chat.max_length": self.length,
            "training.per_device_train_batch_size": self.rows,
            "training.gradient_accumulation_steps": 1,
            "training.activation_checkpointing": self.checkpointing,
            "base_model.attention": ("flash_attention_2",),
        }
        return Training(
            with_settings(load(MODEL), settings),
            config_of(MODEL, layers),
            [self.length] * (2 * self.rows),
            evaluates=False,
            fuses=self.fuses,
            writes_weights_out=self.writes_weights_out,
        )


CASES = [
    Case("as peft and transformers do", fuses=False),
    Case("as trained here"),
    Case("… weights written out", writes_weights_out=True),
    Case("… and without dropout", writes_weights_out=True, dropout=0.0),
    Case("activations computed twice", checkpointing=True),
    Case("as peft and transformers do", rows=1, length=512, fuses=False),
    Case("as trained here", rows=1, length=512),
    Case("… weights written out", rows=1, length=512, writes_weights_out=True),
]


class Cost(NamedTuple):
    """What a step takes."""

    kernels: float
    bytes: float
    operations: float
    held: float
    """The most bytes that it holds."""
    seconds: dict[str, float]
    """On each GPU."""


def cost(case: Case, layers: int, trace: Trace) -> Cost:
    """What a step of a traced training takes."""
    work = [(kernel, count) for phase in PHASES for kernel, count in trace.work.get(phase, {}).items()]
    attention = operations_of_attention(case, layers)
    return Cost(
        kernels=sum(trace.kernels.get(phase, 0) for phase in PHASES),
        bytes=sum(count * kernel.bytes for kernel, count in work),
        operations=sum(count * kernel.operations for kernel, count in work) + attention,
        held=trace.peaks[-1],
        seconds={
            name: sum(n * max(kernel.operations / rates.operations, kernel.bytes / rates.bytes) for kernel, n in work)
            + attention / (rates.attention * rates.operations)
            for name, rates in GPUS.items()
        },
    )


def operations_of_attention(case: Case, layers: int) -> float:
    """Two products forward and five backward, of half of all pairs of a row's tokens."""
    once = 2 * case.rows * case.length**2 * WIDTH * layers
    return once * (3.5 + case.checkpointing)


def whole(case: Case, traced: Callable[[Training], Trace]) -> Cost:
    """What a step of the whole model takes: each layer adds as much as another."""
    few, more = (cost(case, layers, traced(case.training(layers))) for layers in (FEW, MORE))

    def grown(a: float, b: float) -> float:
        return b + (ALL - MORE) * (b - a) / (MORE - FEW)

    return Cost(
        kernels=grown(few.kernels, more.kernels),
        bytes=grown(few.bytes, more.bytes),
        operations=grown(few.operations, more.operations),
        held=grown(few.held, more.held),
        seconds={name: grown(few.seconds[name], more.seconds[name]) for name in GPUS},
    )


def line(case: Case, found: Cost) -> dict[str, str]:
    """A line of the table."""
    tokens = case.rows * case.length
    speeds = {
        f"{name}: ms, tokens/s": f"{1000 * seconds:,.0f}, {tokens / seconds:,.0f}"
        for name, seconds in found.seconds.items()
    }
    return {
        "rows": f"{case.rows} × {case.length:,}",
        "training": case.name,
        "kernels": f"{found.kernels:,.0f}",
        "GB moved": f"{found.bytes / 1e9:,.0f}",
        "TFLOP": f"{found.operations / 1e12:,.0f}",
        "GiB held": f"{found.held / 2**30:.1f}",
        **speeds,
    }


def table() -> str:
    """All lines, as Markdown."""
    with fake_gpu("H100") as traced:
        lines = [line(case, whole(case, traced)) for case in CASES]
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True) + "\n"


def main() -> None:
    """The table is printed, or written into its page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description="How fast a step could be.")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(PAGE.parents[1])}")
    made = table()
    if not parser.parse_args().write:
        print(made, end="")
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + made + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
