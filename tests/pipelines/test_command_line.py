"""What Dagster's command line says of a partition that a selection lacks, or cannot have: a sentence, no traceback."""

import click
import dagster as dg
import pytest

from assets.partitions import RECIPES
from pipelines.command_line import require_partition


@dg.asset(partitions_def=RECIPES)
def made():
    """One of each recipe."""


@dg.asset(deps=[dg.AssetDep(made, partition_mapping=dg.AllPartitionMapping())])
def leaderboard():
    """Of all of them."""


DEFS = dg.Definitions(assets=[made, leaderboard])


def asked(command: str, **given: str | None) -> None:
    """Load the code location in a command that was given these options."""
    with click.Context(click.Command(command)) as context:
        context.params = {"partition": None, "partition_range": None, **given}
        require_partition(DEFS)


@pytest.mark.parametrize(("command", "option"), [("materialize", "select"), ("launch", "assets")])
def test_a_partition_too_many_and_one_too_few_are_told(command, option):
    with pytest.raises(click.UsageError, match=r"--partition phi-2: leaderboard is about all recipes and has no parti"):
        asked(command, **{option: "leaderboard"}, partition="phi-2")
    for selected in ("made", "*", "made,leaderboard", "+leaderboard"):
        with pytest.raises(click.UsageError, match=r"give the recipe by --partition NAME; there are .*phi-2"):
            asked(command, **{option: selected})


def test_what_goes_together_and_what_dagster_tells_itself_is_left_alone():
    require_partition(DEFS)
    asked("materialize", select="made", partition="phi-2")
    asked("materialize", select="made,leaderboard", partition="phi-2")
    asked("materialize", select="leaderboard")
    asked("materialize", select="made", partition_range="a...b")
    asked("materialize", select="nothing")
    asked("launch", job="main_line")
    asked("dev", select="made")


@pytest.mark.long("a command of Dagster's")
def test_the_command_ends_with_a_sentence(tmp_path):
    from tests.pipelines.command import World

    run = World(tmp_path).materialize("phi-2", select="leaderboard")
    assert run.returncode == 2 and "Traceback" not in run.stdout
    assert "Error: --partition phi-2: leaderboard is about all recipes" in run.stdout
