"""The section `resources`: what a training asks of a machine or a cluster."""

from typing import Literal

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
)

from finetuning.recipe.spec import Count, Spec, remakes

Strategy = Literal["ddp", "fsdp"]


class ResourcesSpec(Spec):
    """What the work is given: how many processes train together, and what each asks a Ray cluster for.

    Nothing of it but the number of workers, each of which adds rows to a step, changes what is made.
    """

    model_config = ConfigDict(json_schema_extra=remakes())

    workers: Count | None = Field(
        default=None,
        description="Processes that train together, on this machine or on a cluster; `null` for as many as "
        "`FINETUNING_PROCESSES` says.",
        json_schema_extra=remakes(by_meaning=("lora_adapter",)),
    )
    cpus: Count = Field(default=1, description="Cores of each worker and of each step; on a cluster alone.")
    gpus: int | None = Field(
        default=None,
        ge=0,
        description="GPUs of each worker, and of each step that uses one: 1 or 0; on a cluster alone. `null` for 1 "
        "where the cluster has GPUs, else 0.",
    )
    memory_gb: float | None = Field(
        default=None,
        gt=0,
        description="Gigabytes of memory of each worker and of each step; on a cluster alone. `null` asks for none.",
    )
    strategy: Strategy = Field(
        default="ddp",
        description="What each of several workers holds of the frozen base model: all of it (`ddp`), or a part, with "
        "each layer put together when it is used (`fsdp`), for a model that one GPU does not hold.",
    )

    @field_validator("gpus")
    @classmethod
    def _one_gpu_a_worker(cls, value: int | None) -> int | None:
        if value is not None and value > 1:
            raise ValueError(f"{value} for each worker, which uses one; write gpus: 1 with workers: {value}")
        return value
