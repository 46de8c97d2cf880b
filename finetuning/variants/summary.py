"""What was tried and what was chosen, as the asset `variants` leaves it for training, report and UI."""

from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue

from finetuning.recipe.trials import in_words
from finetuning.recipe.variants import VariantsSpec
from finetuning.record import Record
from finetuning.variants.halving import Race, comparisons


class Reached(Record):
    """How far a variant's training has come: in steps of all its `steps`, with the mean loss on the eval split then."""

    step: int
    steps: int
    loss: float | None
    """In nats per supervised token; None where it was no number any more."""
    seconds: float
    """Of training, from its first step on."""


class Tried(BaseModel):
    """One variant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    changes: dict[str, JsonValue]
    """Its settings, by their paths in the recipe."""
    reached: list[Reached]
    """At each comparison that it came to."""
    state: str | None = None
    """The fingerprint of the artifact that its training goes on from."""

    @property
    def name(self) -> str:
        """Its settings in words."""
        return in_words(self.changes)


class VariantsSummary(Record):
    """All variants in the recipe's order, and the number of the one that was chosen (from 0)."""

    tried: list[Tried]
    chosen: int
    shares: list[float]
    """Of the training, at each comparison."""
    in_time: bool = True
    """Whether all comparisons took place before `variants.minutes` were over."""

    @classmethod
    def of_race(cls, tried: list[Tried], found: Race, spec: VariantsSpec) -> Self:
        """Return what a race with a winner came to."""
        assert found.winner is not None
        return cls(tried=tried, chosen=found.winner, shares=comparisons(spec), in_time=found.in_time)

    @property
    def winner(self) -> Tried:
        """The variant that the adapter is trained with."""
        return self.tried[self.chosen]

    @property
    def seconds(self) -> float:
        """Of training, of all variants."""
        return sum(variant.reached[-1].seconds for variant in self.tried if variant.reached)

    def table(self) -> str:
        """Return each variant's eval loss at each comparison, as Markdown, those that came furthest first."""
        import pandas as pd

        rows = []
        for number, variant in enumerate(self.tried):
            losses = [found.loss for found in variant.reached]
            cells = {f"after {share:.0%}": "" for share in self.shares[: self.compared]}
            cells |= {
                name: "diverged" if loss is None else f"{loss:.4f}" for name, loss in zip(cells, losses, strict=False)
            }
            last = losses[-1] if losses and losses[-1] is not None else float("inf")
            order = (number != self.chosen, -len(losses), last)
            rows.append((order, {"variant": variant.name, **cells, "": "chosen" if number == self.chosen else ""}))
        table = pd.DataFrame([row for _, row in sorted(rows, key=lambda row: row[0])])
        return table.to_markdown(index=False, disable_numparse=True)

    @property
    def compared(self) -> int:
        """How many comparisons there were."""
        return max(len(variant.reached) for variant in self.tried)

    def in_words(self, dev_rows: int) -> str:
        """Return what was done, in a sentence or two."""
        told = (
            f"{len(self.tried)} variants were tried, and compared by their loss on {dev_rows:,} dev rows, which are "
            f"neither learned nor in the exam. Chosen: {self.winner.name}."
        )
        untried = sum(not variant.reached for variant in self.tried)
        if not self.in_time:
            told += " The time that the recipe gives (variants.minutes) was over before all comparisons took place"
            told += f"; {untried} were not tried at all." if untried else "."
        return told
