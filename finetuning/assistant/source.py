"""What an assistant speaks with, once it lies on this machine."""

from dataclasses import dataclass
from pathlib import Path

from finetuning.recipe.recipe import Recipe


@dataclass(frozen=True)
class Source:
    """A tuned model with its base and tokenizer, as folders on this machine, and what is known of it."""

    name: str
    recipe: Recipe
    base_model: Path
    adapter: Path | None
    """None where the adapter is merged into the weights of `base_model`."""
    tokenizer: Path
    source: str
    """Where the weights come from, for people."""
    verdict: str
    examples: tuple[str, ...] = ()
    index: Path | None = None
    """The index of the documents that it answers from; None where it has none, or they are not here."""
    embedding: Path | None = None
    """The embedding model of that index; None where it is by words alone."""
    quantize: bool = False
    """Whether the weights of `base_model` are those from before the recipe's quantization."""
