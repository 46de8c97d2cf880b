"""One partition a recipe. Assets declare it themselves, so it lives beside them, below `pipelines`."""

import warnings

import click
import dagster as dg

from finetuning.errors import FinetuningError
from finetuning.recipe.loading import find, folders, partitions
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.smoke import load_for_run
from resources.ray_cluster.reach import steps_are_ray_jobs

OWNERS = ["team:fine-tuning"]
# Assets without partitions: a run of one recipe leaves them out, whatever it selects.
OF_ALL_RECIPES = ["leaderboard"]
# Of the steps that work with models, one at a time, however many partitions are at work: each may fill the GPU, or keep
# all cores busy. The limit is in dagster.yaml; a cluster's own is how many GPUs it has.
GPU_POOL = None if steps_are_ray_jobs() else "gpu"
# A check whose status is kept by partition is a preview in Dagster 1.13. Without it one model's passed verdict would
# show as every model's.
warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", category=dg.PreviewWarning)


class UnknownPartition(FinetuningError, click.ClickException):
    """A partition that no recipe makes; Dagster's command line shows its text alone, and exits with 2."""

    exit_code = 2

    def __init__(self, key: str, known: list[str]) -> None:
        if key in find() and key not in known:
            click.ClickException.__init__(self, f"--partition {key}: {fault_of_recipe(key)}")
            return
        places = ", ".join(str(folder) for folder in folders())
        click.ClickException.__init__(
            self,
            f"--partition {key}: there is no recipe of that name; there are {', '.join(known)}{nearest(key, known)}. "
            f"Recipes are read from {places}, and from the folders in FINETUNING_RECIPES (separated by ':').",
        )


def fault_of_recipe(name: str) -> str:
    """What is wrong with the recipe, in one message; that the code location is older where it is right."""
    try:
        load_for_run(name)
    except FinetuningError as error:
        return str(error)
    return "the recipe is new: reload the code location."


class RecipePartitions(dg.StaticPartitionsDefinition):
    """The recipes found; an unknown key is explained instead of refused in Dagster's words."""

    def validate_partition_key(self, partition_key: str, context) -> None:
        """Check that a recipe makes this partition.

        Raises:
            UnknownPartition: no recipe has that name.
        """
        if not self.has_partition_key(partition_key):
            raise UnknownPartition(partition_key, list(self.get_partition_keys()))


RECIPES = RecipePartitions(partitions())
