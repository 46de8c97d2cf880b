"""The YAML block at the head of a README, which the Hub calls the card."""

import math
import re
from collections.abc import Iterator

import yaml
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from finetuning.bounded_yaml import load
from finetuning.recipe.licenses import LICENSES
from resources.hub_server.access import Json, json_object
from resources.hub_server.store import Store, Tree, is_repo_id

BLOCK = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)
RELATIONS = ("adapter", "merge", "quantized", "finetune")


def card_of(store: Store, tree: Tree) -> Json:
    """Return the README's metadata as JSON can hold it; empty where there is none or it cannot be read."""
    if "README.md" not in tree:
        return {}
    try:
        card = _metadata(store.content(tree["README.md"]).read_text(errors="replace"))
    except yaml.YAMLError:
        return {}
    return {_text(key): _plain(value) for key, value in card.items()} if isinstance(card, dict) else {}


def _plain(value: object) -> JsonValue:
    """Return what JSON has for a value of YAML: text for what it has nothing for, such as dates and NaN."""
    if isinstance(value, dict):
        return {_text(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(value)


def _text(value: object) -> str:
    return str(value).encode(errors="replace").decode()


async def validate_yaml(request: Request) -> Response:
    body = await json_object(request)
    try:
        card = _plain(_metadata(str(body.get("content", ""))))
        faults = [] if card is None else list(faults_of(card))
    except yaml.YAMLError as error:
        card, faults = {}, [f"YAML Metadata Error: {error}"]
    if faults and "text/plain" in request.headers.get("accept", ""):
        return PlainTextResponse("\n".join(faults), 400)
    missing = ["empty or missing yaml metadata in repo card"] if card is None else []
    reply = {"errors": [{"message": fault} for fault in faults], "warnings": [{"message": text} for text in missing]}
    return JSONResponse(reply, 400 if faults else 200)


def faults_of(card: object) -> Iterator[str]:
    """Yield what is wrong with a card's metadata, in words like the Hub's.

    It looks at less than the Hub does: at licence, base model, data sets, tags and results.

    Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md and .../docs/hub/model-cards.md.
    """
    if not isinstance(card, dict):
        yield "the metadata must be an object"
        return
    licenses = card.get("license", [])
    if not all(
        isinstance(license, str) and license in LICENSES
        for license in (licenses if isinstance(licenses, list) else [licenses])
    ):
        yield f'"license" must be one of [{", ".join(LICENSES)}, array]'
    yield from _wrong_ids(card, "base_model", "models")
    yield from _wrong_ids(card, "datasets", "datasets")
    if card.get("base_model_relation", RELATIONS[0]) not in RELATIONS:
        yield f'"base_model_relation" must be one of [{", ".join(RELATIONS)}]'
    for key in ("pipeline_tag", "library_name", "license_name", "license_link"):
        if not isinstance(card.get(key, ""), str):
            yield f'"{key}" must be a string'
    tags = card.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        yield '"tags" must be an array of strings'
    yield from _wrong_results(card.get("model-index", []))


def _wrong_ids(card: dict[str, object], key: str, kind: str) -> Iterator[str]:
    value = card.get(key, [])
    for name in value if isinstance(value, list) else [value]:
        # Some old repos have no namespace.
        if not isinstance(name, str) or not is_repo_id(kind, name if "/" in name else f"namespace/{name}"):
            yield f'"{key}" with value "{name}" is not valid. Use a {kind[:-1]} id from https://hf.co/{kind}.'


def _wrong_results(index: object) -> Iterator[str]:
    """Yield what is missing from the results of a card: a task, a data set, or metrics with a value."""
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for i, model in enumerate(index):
        yield from _missing(model, ("name", "results"), f"model-index[{i}]")
        for j, result in enumerate(_items(model, "results")):
            place = f"model-index[{i}].results[{j}]"
            yield from _missing(result, ("task", "dataset", "metrics"), place)
            for key, needed in (("task", ("type",)), ("dataset", ("type", "name"))):
                if isinstance(result, dict) and key in result:
                    yield from _missing(result[key], needed, f"{place}.{key}")
            for k, metric in enumerate(_items(result, "metrics")):
                yield from _missing(metric, ("type", "value"), f"{place}.metrics[{k}]")


def _items(record: object, key: str) -> list[object]:
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, list) else []


def _missing(record: object, keys: tuple[str, ...], place: str) -> Iterator[str]:
    there = record if isinstance(record, dict) else {}
    for key in keys:
        if there.get(key) in (None, "", []):
            yield f'"{place}.{key}" is required'


def _metadata(readme: str) -> object:
    block = BLOCK.match(readme)
    return load(block[1]) if block else None
