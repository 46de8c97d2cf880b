"""Keys and values of the tokens so far, with room behind them: a new token is written there, and nothing is copied.

transformers' own cache copies all of them for each token, which takes a third of a CPU's time in an exam.
"""

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens, each time that there is none left


class RoomyLayer(DynamicLayer):
    """A layer that grows like transformers', by `ROOM` tokens at once."""

    def __init__(self, layer: DynamicLayer) -> None:
        """Take over what a layer keeps."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = layer.keys, layer.values
        self._held: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the keys and values of new tokens, and return those of all, each (rows, heads, tokens, size)."""
        if self.keys is None or self.values is None:
            return super().update(key_states, value_states)
        before, after = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if self._held is None or self._held[0].shape[-2] < after:
            self._held = _with_room(self.keys, after), _with_room(self.values, after)
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[..., before:after, :] = new
        self.keys, self.values = (held[..., :after, :] for held in self._held)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Keep these rows, in this order."""
        self._held = None
        super().reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Keep each row so many times."""
        self._held = None
        super().batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        self._held = None
        super().batch_select_indices(indices)

    def reset(self) -> None:
        """Keep nothing."""
        self._held = None
        super().reset()


def _with_room(kept: torch.Tensor, tokens: int) -> torch.Tensor:
    """A copy with room for so many tokens, and for `ROOM` more."""
    rows, heads, before, size = kept.shape
    held = kept.new_empty(rows, heads, tokens + ROOM, size)
    held[..., :before, :] = kept
    return held


def give_room(cache: object) -> None:
    """Let what a model keeps grow without a copy for each token, where it is of transformers' plain kind."""
    if type(cache) is DynamicCache:
        cache.layers = [
            RoomyLayer(layer) if type(layer) is DynamicLayer and layer.keys is not None else layer
            for layer in cache.layers
        ]
