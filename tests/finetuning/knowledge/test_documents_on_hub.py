"""Documents of a data set on a hub, in a process of its own: the client reads the hub's address when it is imported."""

import json

from resources.hub_server.local import local_hub
from tests.finetuning.dataset.test_hub_rows import child

PUSH = """
from datasets import Dataset
rows = [
    {"title": "pump", "body": "# Pump\\n\\nIt needs oil."},
    {"title": None, "body": "# Lamp\\n\\nIt gives light."},
    {"title": "", "body": "No heading."},
    {"title": "empty", "body": None},
]
Dataset.from_list(rows).push_to_hub("local/pages")
"""
READ = """
import json, os, sys
from huggingface_hub import HfApi
from finetuning.errors import FinetuningError
from finetuning.knowledge.documents import documents_in, resolve_all, write_documents
from finetuning.recipe.recipe import Recipe
from pathlib import Path

api = HfApi(endpoint=os.environ["HF_ENDPOINT"], token=os.environ.get("HF_TOKEN") or False)
rest = {"name": "x", "summary": "x", "base_model": {"repo": "lab/tiny"}, "hub": {"repo": "x", "license": "mit"}}
rest["dataset"] = {"sources": [{"hub": "lab/a"}], "eval": {"sources": [{"hub": "lab/b"}]}}
for number, spec in enumerate(json.loads(sys.argv[1])):
    recipe = Recipe.model_validate(rest | {"knowledge": {"documents": [spec]}})
    folder = Path(f"out-{os.getpid()}-{number}")
    try:
        known = resolve_all(recipe, api)
        summary = write_documents(recipe, known, Path(os.environ["HF_HOME"]) / folder, api)
        names = {one.name: one.text for one in documents_in(Path(os.environ["HF_HOME"]) / folder)}
        faults = [[fault.name, fault.reason] for fault in summary.unreadable_examples]
        print(json.dumps([names, faults, list(known.values())]))
    except FinetuningError as error:
        print(json.dumps(str(error)))
"""


def test_each_row_is_a_document_under_its_name_or_its_place(tmp_path):
    with local_hub(tmp_path / "hub", grace=1.0) as hub:
        child(hub.endpoint, tmp_path / "push", PUSH, token=hub.token)
        pages = {"hub": "local/pages", "text": "body"}
        asked = [pages | {"name": "title"}, pages, {"hub": "local/pages"}, {"hub": "local/nothing"}]
        named, numbered, without, missing = child(
            hub.endpoint, tmp_path / "read", READ, json.dumps(asked), token=hub.token
        )
    (names, faults, (commit,)) = named
    assert names["pump"] == "# Pump\n\nIt needs oil." and len(commit) == 40
    assert set(names) == {"pump", "local/pages train:2", "local/pages train:3"}
    assert faults == [["empty", "no text in it"]]
    assert set(numbered[0]) == {f"local/pages train:{number}" for number in (1, 2, 3)}
    assert "no text in any of them" in without and "no column 'text' in the row; it has title, body" in without
    assert missing.startswith("x.yaml: knowledge.documents[0]") and "local/nothing" in missing
