"""What people say of answers over HTTP: kept where the recipe asks for it, and taken back."""

import asyncio
import getpass
import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from finetuning.assistant.conversations import BadRequest
from finetuning.assistant.source import Source
from finetuning.feedback.entries import FeedbackRefused, delete, folder_of, keep, parsed


def name_of(source: Source) -> str | None:
    """Return the name by which feedback on this source is kept; None where the recipe keeps none."""
    spec = source.recipe.feedback
    return (spec.name or source.recipe.name) if spec else None


def about(source: Source) -> dict[str, str] | None:
    """Return what the page tells of it."""
    name = name_of(source)
    if name is None:
        return None
    notice = (
        f"What you say here of an answer is kept on this machine, with the conversation and both answers, in "
        f"{folder_of(name)}, and may be learned from. What looks like a password or key is refused."
    )
    return {"name": name, "notice": notice}


async def add(request: Request, source: Source, body: bytes) -> Response:
    """Keep an entry, and answer with its id once it is on the disk."""
    folder = _folder(source)
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {str(error)[:200]}") from None
    feedback = parsed(data)
    feedback.who = feedback.who or getpass.getuser()
    entry = await asyncio.to_thread(keep, folder, feedback, source.source)
    return JSONResponse({"id": entry.id}, 201)


async def take_back(request: Request, source: Source) -> Response:
    """Delete an entry."""
    deleted = await asyncio.to_thread(delete, _folder(source), {request.path_params["id"]})
    return JSONResponse({"deleted": deleted}, 200 if deleted else 404)


def _folder(source: Source) -> Path:
    """Return where entries are kept.

    Raises:
        FeedbackRefused: the recipe keeps none.
    """
    name = name_of(source)
    if name is None:
        raise FeedbackRefused(f"{source.recipe.file}: feedback: null, so that nothing is kept; write feedback: {{}}")
    return folder_of(name)
