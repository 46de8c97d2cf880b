"""The YAML block at the head of a README, which the Hub calls the card."""

import json
import re
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from resources.hub_server.access import json_object
from resources.hub_server.store import Store, Tree

BLOCK = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)


def card_of(store: Store, tree: Tree) -> dict[str, Any]:
    """The README's metadata as JSON can hold it; empty where there is none or it can not be read."""
    if "README.md" not in tree:
        return {}
    try:
        card = _metadata(store.content(tree["README.md"]).read_text(errors="replace"))
    except yaml.YAMLError:
        return {}
    return json.loads(json.dumps(card, default=str)) if isinstance(card, dict) else {}


async def validate_yaml(request: Request) -> Response:
    body = await json_object(request)
    try:
        card = _metadata(body["content"])
    except yaml.YAMLError as error:
        return JSONResponse({"errors": [{"message": f"YAML Metadata Error: {error}"}], "warnings": []}, 400)
    missing = [] if card is not None else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": missing})


def _metadata(readme: str) -> object:
    block = BLOCK.match(readme)
    return yaml.safe_load(block[1]) if block else None
