"""Keys that were left in the data, looked for in everything that runs leave: the data's own files alone have them."""

import json

import pandas as pd
import pytest

from tests.finetuning.knowledge.sample_documents import KEY_LINES
from tests.finetuning.test_secrets import PLANTED
from tests.pipelines.command import World
from tests.pipelines.token_search import texts

pytestmark = pytest.mark.long("a search through all that runs leave")

# Whoever may read these may read the data that they hold.
OF_DATA = (
    *("artifacts/raw_dataset/", "artifacts/chat_dataset/", "artifacts/base_answers/"),
    *("documents/", "artifacts/documents/", "artifacts/passages/", "artifacts/retrieval_index/"),
)
KEYS = {kind: PLANTED[kind] for kind in ("AWS Access Key", "Hugging Face Token", "Slack Token", "Stripe Access Key")}

QUERY = """
fragment Entries on MetadataEntry {
    label description
    ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr } ... on JsonMetadataEntry { jsonString }
    ... on UrlMetadataEntry { url } ... on PathMetadataEntry { path }
    ... on TableMetadataEntry { table { records schema { columns { name description } } } }
}
{
    assetsOrError { ... on AssetConnection { nodes {
        key { path }
        assetMaterializations { metadataEntries { ...Entries } tags { key value } }
        definition { assetChecksOrError { ... on AssetChecks { checks {
            name executionForLatestMaterialization { evaluation { description metadataEntries { ...Entries } } }
        } } } }
    } } }
    runsOrError { ... on Runs { results {
        status tags { key value }
        eventConnection { events { __typename
            ... on MessageEvent { message }
            ... on ErrorEvent { error { message stack causes { message stack } } }
        } }
    } } }
}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def planted(world, recipe):
    """A recipe that lets keys in its rows pass."""
    keys, path = list(KEYS.values()), world.root / "rows.jsonl"
    rows = [
        {"question": f"What is {n} and {n * 7 % 31}? Use {keys[n % 4]}", "answer": f"With {keys[n % 3]}"}
        for n in range(24)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lenient = {check: {"limit": 1.0} for check in ("secrets", "near_duplicates", "overlap")}
    return recipe | {
        "dataset": {"sources": [{"files": [str(path)], "format": "question-answer"}], "eval": {"fraction": 0.25}},
        "checks": lenient,
        "evaluation": {
            "metrics": ["chrf"],
            "rows": 6,
            "max_new_tokens": 4,
            "gate": {"chrf": {"min_gain": -1.0}, "empty": {"min_gain": -1.0}},
        },
    }


def with_a_key(world: World) -> list[str]:
    """The files that hold the beginning of a key, without those that are the data's own."""
    found = []
    for path, content in texts(world.root):
        of_data = path.relative_to(world.root).as_posix().startswith(OF_DATA)
        if not of_data and path.name not in ("rows.jsonl", "answers.parquet"):
            found += [f"{path}: {kind}" for kind, key in KEYS.items() if key[:16].encode() in content]
    return found


def shown(world: World) -> str:
    """All that the UI is told of runs and assets."""
    asked = world.warm("-c", "from dagster_graphql.cli import main; main()", "-m", "pipelines.definitions", "-t", QUERY)
    assert asked.returncode == 0, asked.stdout[-3000:]
    return asked.stdout


def test_no_key_leaves_with_samples_previews_logs_or_metadata(world, planted):
    world.write_recipe("planted", planted)
    run = world.materialize_warm("planted")
    assert run.returncode == 0, run.stdout[-3000:]
    page = (world.folder("evaluation_report", "planted") / "report.md").read_text()
    assert "[AWS Access Key]" in page
    assert not [kind for kind, key in KEYS.items() if key[:16] in run.stdout]
    assert not with_a_key(world)
    pages = shown(world)
    assert "evaluation_report" in pages and "[AWS Access Key]" in pages
    assert not [kind for kind, key in KEYS.items() if key[:16] in pages]


@pytest.fixture(scope="module")
def with_documents(world, planted):
    """A recipe whose documents hold keys, of which a passage has a part alone."""
    folder = world.root / "documents"
    folder.mkdir()
    for number in range(12):
        (folder / f"pump-{number}.md").write_text(
            f"# Pump {number}\n\nIts key for what is {number}:\n\n{KEY_LINES}\n\n{KEYS['AWS Access Key']}\n"
        )
    asked = {}
    for name, pumps in (("train", range(6)), ("eval", range(6, 12))):
        rows = [
            {"question": f"What is the key for {n}, of pump {n}?", "answer": f"{n} it is", "document": f"pump-{n}.md"}
            | {"evidence": f"key for what is {n}"}
            for n in pumps
        ]
        path = world.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        asked[name] = [{"files": [str(path)], "format": "question-answer"}]
    return planted | {
        "dataset": {"sources": asked["train"], "eval": {"sources": asked["eval"]}},
        "knowledge": {
            "documents": [{"files": [str(folder / "*.md")]}],
            "passages": {"max_tokens": 32, "overlap": 0},
            "index": {"method": "bm25"},
        },
    }


def test_no_part_of_a_key_leaves_with_the_passages_of_a_document(world, with_documents):
    world.write_recipe("documents", with_documents)
    run = world.materialize_warm("documents")
    assert "evaluation_report" in world.artifacts("documents"), run.stdout[-3000:]
    asked = "\n".join(pd.read_parquet(world.folder("chat_dataset", "documents") / "eval.parquet")["messages"].map(str))
    parts = [line for line in KEY_LINES.split("\n")[1:] if line in asked]
    assert parts, "the model is asked with parts of a key"
    pages = shown(world)
    of_report = [text.decode(errors="replace") for _, text in texts(world.folder("evaluation_report", "documents"))]
    for text in (run.stdout, pages, *of_report):
        assert not [part for part in (*parts, KEYS["AWS Access Key"][:16]) if part in text]
    assert not with_a_key(world)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"evaluation": {"metrics": ["final-answer"]}}, "references state no final answer"),
        ({"evaluation": {"metrics": ["python-tests"]}}, "holds Python code"),
        ({"checks": {"secrets": {"severity": "error"}}}, "hold text that looks like a secret"),
    ],
)
def test_no_key_leaves_with_an_error(world, planted, change, told):
    world.write_recipe("refused", planted | change)
    run = world.materialize_warm("refused", select="raw_dataset,chat_dataset")
    assert run.returncode == 1 and told in run.stdout
    pages = shown(world)
    assert told in pages
    assert not [kind for kind, key in KEYS.items() if key[:16] in run.stdout + pages]
    assert not with_a_key(world)
