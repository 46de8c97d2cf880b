"""What `quantized_base_model` leaves for later steps to read: how large the model is, and what quantization cost it."""

from dataclasses import dataclass

from finetuning.record import Record


@dataclass(frozen=True)
class QuantizedLayer:
    """One quantized layer: its name, its shape such as `64x32`, and its relative error."""

    layer: str
    shape: str
    error: float


class QuantizationSummary(Record):
    """Sizes are in MiB, errors relative: the norm of the difference over the norm of the weight."""

    parameters: int
    full_size_mb: float
    size_mb: float
    quantization_error: float
    layers: list[QuantizedLayer]
    """Empty in full precision, and where weights came quantized: what that cost nobody can tell then."""
    as_it_came: bool = False
    """Whether bitsandbytes had quantized the weights already, which are kept as they were."""
    notes: tuple[str, ...] = ()
    """What there is to say of the model: what was left out, mended, or stays in full."""
