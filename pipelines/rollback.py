"""The job `rollback`: an earlier version of a published model becomes the head of its repo again.

Its partition names the recipe, and its configuration the version:

dg launch --job rollback --partition phi-2 --config-json '{"ops": {"roll_back": {"config": {"tag": "0a1b…"}}}}'
"""

import dagster as dg
from pydantic import Field

from assets.failures import explained
from assets.partitions import RECIPES
from finetuning.recipe.smoke import load_for_run, title_of
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.hub_client.connection import Publication
from resources.hub_client.versions import adapter_of, head_of, roll_back, version_about
from resources.store.artifact import Artifact


class Rollback(dg.Config):
    """Where to go back to."""

    tag: str = Field(description="The version: a tag of the repo, sixteen hexadecimal digits, as hub_state shows it.")


@dg.op(name="roll_back")
def roll_back_repos(context: dg.OpExecutionContext, config: Rollback, artifacts: Artifacts, hub: Hub) -> None:
    """Make that version the head of the adapter's repo, and of the merged model's, where it has one of this adapter."""
    with explained(), hub.connect(log=context.log.warning) as connection:
        recipe = load_for_run(context.partition_key)
        repo_id, title = connection.repo_id(recipe.hub.repo), title_of(recipe)
        adapter = adapter_of(connection, repo_id, config.tag)
        made = artifacts.find("published_repo", recipe.name, config.tag, context.log.info)
        tell(context, roll_back(connection, repo_id, config.tag, title, recorded(made)))
        merged = f"{repo_id}-merged"
        if head_of(connection, merged):
            tag = version_about(connection, merged, adapter)
            if tag:
                made = artifacts.find("published_merged_repo", recipe.name, tag, context.log.info)
                tell(context, roll_back(connection, merged, tag, title, recorded(made)))
            else:
                context.log.warning(f"{merged} has no version of adapter {adapter} and stays what it is")


def recorded(made: Artifact | None) -> dict[str, str]:
    """The sha256 of each file of a version, by its path; none where it was not published from here."""
    return made.summary.get("files", {}) if made else {}


def tell(context: dg.OpExecutionContext, made: Publication) -> None:
    """Log what the repo holds now."""
    done = "holds it again" if made.created else "held it already"
    context.log.info(f"{made.repo_id}: version {made.tag}: {done}, commit {made.commit}")


@dg.job(
    partitions_def=RECIPES,
    description="Makes an earlier version of a published model the head of its repo again, as a new commit, if the "
    "report that lies in that version says that it passed. Later runs leave it so until there is something new.",
)
def rollback() -> None:
    """One step for both repos, the adapter's first; where it ends in between, it may be run again."""
    roll_back_repos()
