"""What the tests of the main line have in common: its assets, gates, and changes of its recipe."""

import copy

from huggingface_hub import HfApi

from resources.hub_server.local import local_hub
from tests.pipelines.command import World

ASSETS = {
    "raw_dataset",
    "chat_dataset",
    "quantized_base_model",
    "lora_adapter",
    "evaluation_report",
    "published_repo",
}
REUSED = rf"(?:{'|'.join(sorted(ASSETS))}) [0-9a-f]{{16}}: reused,"
# Tiny models say nothing, or nothing that is right.
PASSES = {"exact-match": {"min_gain": -1.0}, "empty": {"min_gain": -1.0}}
FAILS = {"exact-match": {"min_gain": 1.0}}


def changed(recipe: dict, section: str, **keys) -> dict:
    other = copy.deepcopy(recipe)
    other[section] |= keys
    return other


def commits(world: World, repo_id: str) -> list[str]:
    with local_hub(world.root / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        return [commit.title for commit in api.list_repo_commits(repo_id)]
