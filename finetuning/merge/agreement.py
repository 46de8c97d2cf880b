"""How near a merged model comes to base and adapter, and whether that is as near as its recipe asks for."""

from pydantic import BaseModel, ConfigDict, Field

from finetuning.recipe.merge import MergeSpec
from finetuning.record import Record


class Agreement(BaseModel):
    """How a model's next tokens compare with those of base and adapter, on supervised positions of eval rows."""

    model_config = ConfigDict(frozen=True)

    agreement: float
    """Share of positions at which both find the same token likeliest."""
    kl: float
    """Mean divergence of the model's distribution from the other's, in nats."""
    positions: int


class GgufSummary(Agreement):
    """The GGUF file of a merged model."""

    file: str
    size_mb: float


class MergedSummary(Record, Agreement):
    """What `merged_model` leaves beside the weights."""

    parameters: int
    size_mb: float
    dtype: str
    gguf: GgufSummary | None = Field(default=None, exclude_if=lambda value: value is None)
    """None where the recipe asks for no such file."""


def faults(spec: MergeSpec, summary: MergedSummary) -> list[str]:
    """Return in words what the recipe asks of a merged model and this one does not keep; empty where all is well."""
    models: dict[str, Agreement] = {"merged model": summary}
    if summary.gguf:
        models[summary.gguf.file] = summary.gguf
    return [fault for name, measured in models.items() for fault in faults_of(spec, name, measured)]


def faults_of(spec: MergeSpec, name: str, measured: Agreement) -> list[str]:
    """Return the limits that one model or file does not keep."""
    found = []
    if measured.agreement < spec.min_agreement:
        found.append(
            f"{name} and adapter agree on {measured.agreement:.2%} of {measured.positions} tokens, and "
            f"merge.min_agreement asks for {spec.min_agreement:.2%}"
        )
    if measured.kl > spec.max_kl:
        found.append(
            f"{name} and adapter are {measured.kl:.4f} nats a token apart, and merge.max_kl allows {spec.max_kl:g}"
        )
    return found
