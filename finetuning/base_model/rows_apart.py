"""Whether a model keeps rows apart that lie end to end in one: by trial, as no configuration tells.

keeps_rows_apart(load_model(folder, attn_implementation="varlen")) -> True

The kernels that can do so are told by positions and bounds where each row begins. A model that does not hand these on
lets a row see what stands before it, and nothing fails.
"""

from typing import Any

import torch

from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import KEEP_ROWS_APART

TOKENS = 8  # of each row
FIRST = 3  # token number: those below it mean something to most models
# Of the logits' length. Rows that see each other differ by tenths of it, and those that do not by rounding at most,
# where 8 bits are chosen for all rows of a pass together.
ROUNDING = 0.01


def keeps_rows_apart(model: Any) -> bool:
    """Whether the logits of a row stay as they are when the row before it changes."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            one, other = (logits_behind(model, FIRST + TOKENS * (1 + place)) for place in range(2))
    finally:
        model.train(was_training)
    return bool((one - other).norm() <= ROUNDING * one.norm())


def require_rows_apart(model: Any, where: str) -> None:
    """Check that packed rows do not see each other.

    Raises:
        FinetuningError: they do.
    """
    if not keeps_rows_apart(model):
        raise FinetuningError(
            f"{where}: training.packing: true, and with {model.config._attn_implementation} (base_model.attention) the "
            f"rows that {type(model).__name__} reads in one see each other. Write packing: false, or allow another of "
            f"{', '.join(KEEP_ROWS_APART)}."
        )


def logits_behind(model: Any, before: int) -> torch.Tensor:
    """The logits (tokens, vocabulary) of one row, which follows a row of the tokens from `before` on."""
    device, most = model.get_input_embeddings().weight.device, model.get_input_embeddings().num_embeddings
    ids = torch.cat([torch.arange(start, start + TOKENS) for start in (before, FIRST)]) % most
    bounds = (torch.arange(3, dtype=torch.int32) * TOKENS).to(device)
    lengths = {"max_length_q": TOKENS, "max_length_k": TOKENS}
    answer = model(
        input_ids=ids[None].to(device),
        position_ids=torch.arange(TOKENS).repeat(2)[None].to(device),
        **{"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, **lengths},
        use_cache=False,
    )
    return answer.logits[0, TOKENS:].float()
