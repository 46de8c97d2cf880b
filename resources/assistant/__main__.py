"""Talk to a tuned model beside its base: `python -m resources.assistant chat|serve RECIPE`, or `feedback NAME`.

RECIPE is a recipe's name, for the adapter on this machine, or with `--published` for the version in force on the hub;
OWNER/REPO is any repo on that hub that this pipeline published. `feedback` exports what people said, or deletes some.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from finetuning.assistant.source import Source
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.settings import text_of
from resources.artifacts import Artifacts
from resources.assistant.sources import of_published, of_recipe, of_repo
from resources.environment import prepare_libraries
from resources.gpu import Gpu
from resources.hub import Hub
from resources.loopback import ASSISTANT_PORT, listening

if TYPE_CHECKING:
    from finetuning.assistant.assistant import Assistant

Number = TypeVar("Number", int, float)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code of the command."""
    chosen = parser().parse_args(arguments)
    # Before the libraries are imported: what they say to each other is not for whoever talks.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        prepare_libraries()
        chosen.act(chosen)
    except FinetuningError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's description."""
    made = argparse.ArgumentParser(prog="python -m resources.assistant", description="Talk to a tuned model.")
    commands = made.add_subparsers(required=True, metavar="chat|serve|feedback")
    chat = commands.add_parser("chat", help="talk at the terminal")
    chat.add_argument("--side", choices=("tuned", "base", "both"), default="tuned", help="who answers (tuned)")
    chat.add_argument("--temperature", type=within(float, 0, 2), default=0.0, help="0, as in the exam, is greedy")
    chat.add_argument("--max-tokens", type=within(int, 1, 2**31 - 1), help="most tokens of an answer (as in the exam)")
    chat.add_argument("--seed", type=within(int, 0, 2**63 - 1), help="of the drawing of tokens")
    chat.set_defaults(act=talk)
    serve = commands.add_parser("serve", help="serve OpenAI's chat completions and a page, for this machine alone")
    serve.add_argument("--port", type=within(int, 0, 65_535), help=f"{ASSISTANT_PORT}, or any that is free")
    serve.set_defaults(act=serve_it)
    feedback = commands.add_parser("feedback", help="what people said of answers: export it, or delete some")
    feedback.add_argument("name", metavar="NAME", help="the name that it is kept by")
    feedback.add_argument("--delete", nargs="+", metavar="ID", help="take these entries off the disk")
    feedback.add_argument("--delete-of", metavar="WHO", help="take all off the disk that somebody gave")
    feedback.set_defaults(act=feedback_of)
    for command in (chat, serve):
        command.add_argument("source", metavar="RECIPE|OWNER/REPO", help="a recipe's name, or a repo on the hub")
        command.add_argument("--published", action="store_true", help="the version of the recipe that is in force")
        command.add_argument("--revision", help="branch, tag or commit of the repo (the version in force)")
    return made


def within(kind: Callable[[str], Number], least: float, most: float) -> Callable[[str], Number]:
    """Return what reads a number of the command line that is not outside these."""

    def read(text: str) -> Number:
        if not least <= (number := kind(text)) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least:,} to {most:,}")
        return number

    read.__name__ = "number"  # what argparse calls one that is none
    return read


def source_of(chosen: argparse.Namespace) -> Source:
    """Return what the command line names.

    Raises:
        FinetuningError: it is not there.
    """
    if "/" in chosen.source:
        return of_repo(chosen.source, chosen.revision, Hub.of_environment())
    if chosen.revision:
        raise FinetuningError("--revision goes with OWNER/REPO; a recipe's adapter is the one in force")
    if chosen.published:
        return of_published(chosen.source, Hub.of_environment())
    return of_recipe(chosen.source, Artifacts.of_environment(), Hub.of_environment())


@contextmanager
def loaded(source: Source) -> Iterator["Assistant"]:
    """Yield the assistant that speaks with `source`; it is closed after the block."""
    print(f"loading {source.source} …", file=sys.stderr, flush=True)
    from finetuning.assistant.assistant import Assistant

    gpu = Gpu(require=text_of("require"), locks=None)
    assistant = Assistant(source, gpu.model_kwargs(source.recipe.base_model))
    try:
        yield assistant
    finally:
        assistant.close()


def talk(chosen: argparse.Namespace) -> None:
    """Talk at the terminal."""
    source = source_of(chosen)
    import readline  # noqa: F401  # lines can be edited, and those before come back

    from rich.console import Console

    from finetuning.assistant.assistant import Asking
    from resources.assistant.terminal import Chat

    how = Asking(chosen.max_tokens, chosen.temperature, seed=chosen.seed)
    with loaded(source) as assistant:
        Chat(assistant, Console(), how, chosen.side).run(lambda: input("> "))


def serve_it(chosen: argparse.Namespace) -> None:
    """Serve until interrupted.

    Raises:
        InfrastructureError: the port is taken.
    """
    source = source_of(chosen)
    bound = listening(ASSISTANT_PORT if chosen.port is None else chosen.port)
    if bound is None and chosen.port is None:
        bound = listening(0)
    if bound is None:
        raise InfrastructureError(
            f"Port {chosen.port} is taken by another program. Leave --port out, or name a free one."
        )
    import uvicorn

    from resources.assistant.app import create_app

    with bound, loaded(source) as assistant:
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        print(f"{' and '.join(assistant.names)} at {address} (page) and {address}/v1 (OpenAI's API)", flush=True)
        config = uvicorn.Config(create_app(assistant), ws="none", log_level="warning", proxy_headers=False)
        uvicorn.Server(config).run([bound])


def feedback_of(chosen: argparse.Namespace) -> None:
    """Print the entries of a name, a line of JSON each, or delete some.

    Raises:
        FinetuningError: nothing is kept by that name.
    """
    from finetuning.feedback.entries import delete, entries, folder_of

    folder = folder_of(chosen.name)
    if not folder.is_dir():
        raise FinetuningError(f"{folder}: nothing is kept by the name {chosen.name}")
    if chosen.delete or chosen.delete_of:
        print(f"{delete(folder, set(chosen.delete or ()), chosen.delete_of)} deleted")
        return
    for entry in entries(folder):
        print(entry.model_dump_json())


if __name__ == "__main__":
    sys.exit(main())
