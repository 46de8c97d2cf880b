"""What the main line is made from and does not make itself: recipes, data and base models, as external parents.

Sensors observe them, so that the UI shows which partitions are made from what is no longer there.
"""

import dagster as dg

from assets.partitions import OWNERS, RECIPES

RECIPE, DATASET_SOURCES, BASE_MODEL_SOURCE = "recipe", "dataset_sources", "base_model_source"
DOCUMENT_SOURCES = "document_sources"
DESCRIPTIONS = {
    RECIPE: "The YAML file that says what is trained, on what, and what it has to prove. Its version is a hash of "
    "what it means (comments and order change nothing), with the adapters of other recipes that it is made from.",
    DATASET_SOURCES: "The data sets and files that the recipe names, where their authors keep them. Their version is "
    "the commit of a data set, the contents of files.",
    DOCUMENT_SOURCES: "The documents that the recipe names, where their authors keep them. Their version is the "
    "commit of a data set, the contents of files.",
    BASE_MODEL_SOURCE: "The model to start from, where its authors keep it. Its version is the commit.",
}
KINDS = {
    RECIPE: {"yaml"},
    DATASET_SOURCES: {"dataset", "huggingface"},
    DOCUMENT_SOURCES: {"markdown"},
    BASE_MODEL_SOURCE: {"huggingface"},
}
PARENTS = [
    dg.AssetSpec(
        name,
        description=description,
        group_name="sources",
        kinds=KINDS[name],
        owners=OWNERS,
        partitions_def=RECIPES,
    )
    for name, description in DESCRIPTIONS.items()
]


def seen(parent: str, partition: str, version: str) -> dg.AssetObservation:
    """The event that a parent has this version now."""
    return dg.AssetObservation(
        asset_key=parent, partition=partition, tags={"dagster/data_version": version}, metadata={"version": version}
    )
