"""The asset graph as Dagster sees it: names, edges, partitions, and what a person reads of each asset."""

import subprocess
import sys

import dagster as dg
import pytest

from assets.partitions import OF_ALL_RECIPES
from finetuning.recipe.checks import ChecksSpec
from finetuning.recipe.loading import find
from pipelines.definitions import defs

EDGES = {
    "raw_dataset": {"recipe", "dataset_sources"},
    "documents": {"recipe", "document_sources"},
    "passages": {"documents"},
    "retrieval_index": {"passages"},
    "chat_dataset": {"raw_dataset", "retrieval_index"},
    "quantized_base_model": {"recipe", "base_model_source"},
    "variants": {"chat_dataset", "quantized_base_model"},
    "lora_adapter": {"chat_dataset", "quantized_base_model", "variants"},
    "evaluation_report": {"lora_adapter"},
    "published_repo": {"evaluation_report"},
    "merged_model": {"lora_adapter"},
    # It stands beside the adapter's repo, and never without it.
    "published_merged_repo": {"merged_model", "published_repo"},
}
OBSERVED = {
    "recipe": set(),
    "dataset_sources": set(),
    "document_sources": set(),
    "base_model_source": set(),
    "hub_state": {"published_repo"},
}
BESIDE = {"leaderboard": {"evaluation_report"}}
SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_the_graph_is_the_main_line():
    assert {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in SPECS.items()} == (
        EDGES | OBSERVED | BESIDE
    )


@pytest.mark.parametrize("name", EDGES | OBSERVED)
def test_every_asset_has_one_partition_a_recipe(name):
    partitions = SPECS[name].partitions_def
    assert isinstance(partitions, dg.StaticPartitionsDefinition)
    assert partitions.get_partition_keys() == list(find())


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_of_all_recipes_has_no_partitions_and_stands_at_the_end(name):
    assert SPECS[name].partitions_def is None and name in OF_ALL_RECIPES
    assert not [other for other, spec in SPECS.items() if name in {dep.asset_key.to_user_string() for dep in spec.deps}]


def test_nothing_is_expected_in_time_where_no_recipe_asks_for_it():
    assert not [name for name, spec in SPECS.items() if spec.freshness_policy]


@pytest.mark.parametrize("name", EDGES | BESIDE)
def test_every_asset_explains_itself(name):
    spec = SPECS[name]
    assert spec.group_name in {"data", "knowledge", "model", "proof", "publication"}
    assert spec.kinds and spec.owners and spec.code_version
    assert name in BESIDE or spec.tags.keys() & {"gpu", "hub"}
    assert len(spec.description or "") > 100


def test_every_check_blocks_and_is_kept_by_partition():
    checks = {
        (spec.asset_key.to_user_string(), spec.name): spec
        for definition in defs.resolve_asset_graph().assets_defs
        for spec in definition.check_specs
    }
    assert {("evaluation_report", "verdict"), ("merged_model", "same_answers")} <= checks.keys()
    assert ("raw_dataset", "unreadable_rows") in checks
    elsewhere = {"unreadable_rows", "unreadable_documents", "cut_passages"}
    assert {name for asset, name in checks if asset == "chat_dataset"} == {
        *ChecksSpec.model_fields,
        "max_length",
    } - elsewhere
    for (asset, _), spec in checks.items():
        assert spec.blocking and spec.partitions_def == SPECS[asset].partitions_def


def test_the_main_line_is_a_job_over_all_assets_of_one_recipe():
    job = defs.resolve_job_def("main_line")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(EDGES)


def test_the_leaderboard_is_made_by_a_job_of_its_own():
    job = defs.resolve_job_def("make_leaderboard")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(BESIDE)
    assert job.partitions_def is None


def test_the_hub_is_observed_by_a_job_of_its_own():
    job = defs.resolve_job_def("observe_hub")
    assert {key.to_user_string() for key in job.asset_layer.asset_graph.observable_asset_keys} == {"hub_state"}


def test_every_name_is_there_once():
    dg.Definitions.validate_loadable(defs)


def test_the_code_location_loads_without_heavy_libraries():
    heavy = {"torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "huggingface_hub", "pandas", "pyarrow"}
    code = f"import sys, pipelines.definitions; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
