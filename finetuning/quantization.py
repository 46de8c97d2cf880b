"""bitsandbytes' configuration of the weights that a recipe asks for."""

from transformers import BitsAndBytesConfig

from finetuning.recipe.base_model import QuantizationSpec


def bitsandbytes_config(spec: QuantizationSpec, dtype: str, outliers: bool = True) -> BitsAndBytesConfig:
    """Return the recipe's quantization as transformers has it.

    Args:
        dtype: torch's name of the format that 4-bit weights are computed in.
        outliers: whether 8-bit layers compute large activations in full precision, as bitsandbytes does by default.
    """
    if spec.bits == 8:
        threshold = 6.0 if outliers else 0.0  # 6.0 is bitsandbytes' own
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=threshold)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.type or "nf4",
        bnb_4bit_use_double_quant=spec.double,
        bnb_4bit_compute_dtype=dtype,
    )
