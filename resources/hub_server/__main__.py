"""Serve a Hub on loopback: `python -m resources.hub_server --state DIR`."""

import argparse
import contextlib
import sys
from pathlib import Path

from finetuning.errors import FinetuningError, InfrastructureError
from resources.hub_server.accounts import Account, parse_account
from resources.hub_server.app import create_app
from resources.hub_server.serving import bound_socket, serve
from resources.hub_server.state_folder import LOCAL_USER, announced, exclusive, is_held, make_token, prepared

# Longer than the server of a pipeline run takes to end after its last use.
WAIT_SECONDS = 15.0


def main() -> int:
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _run(_parser().parse_args())
    except FinetuningError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(arguments: argparse.Namespace) -> None:
    state = prepared(arguments.state)
    if is_held(state / "server.lock"):
        print(f"{_served(state)} Waiting for that to end, {WAIT_SECONDS:.0f} s at most.", file=sys.stderr)
    try:
        with exclusive(state / "server.lock", WAIT_SECONDS):
            _serve(state, arguments)
    except TimeoutError:
        raise InfrastructureError(f"{_served(state)} One process serves a folder: use that one, or end it.") from None


def _serve(state: Path, arguments: argparse.Namespace) -> None:
    (state / "server.json").unlink(missing_ok=True)  # left by a server that was killed
    accounts = {make_token(state): Account(LOCAL_USER), **dict(arguments.token)}
    listening = bound_socket(state, arguments.port)
    app = create_app(
        state,
        accounts,
        show_private=arguments.show_private,
        cdn_origin=f"http://localhost:{listening.getsockname()[1]}" if arguments.cdn else None,
        testing=arguments.faults,
    )
    serve(app, state, listening, arguments.while_leased)


def _served(state: Path) -> str:
    server = announced(state)
    where = f"at {server.endpoint}, by process {server.pid}" if server else "by a process that has not said where"
    return f"{state} is served already, {where}."


def _account(text: str) -> tuple[str, Account]:
    try:
        return parse_account(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m resources.hub_server", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder that holds repos, token and locks")
    parser.add_argument("--port", type=int, help="default: the port of last time, or 8765, or any that is free")
    parser.add_argument(
        "--token",
        type=_account,
        action="append",
        default=[],
        metavar="TOKEN=USER[:read][,ORGANIZATION…]",
        help=f"one more account beside `{LOCAL_USER}`, whose token lies in the folder; visible in the process list",
    )
    parser.add_argument("--show-private", action="store_true", help="open the pages of private repos in the browser")
    parser.add_argument(
        "--while-leased", type=float, metavar="SECONDS", help="end when nobody has held the lease for that long"
    )
    parser.add_argument("--cdn", action="store_true", help="large files come through a redirect to another host name")
    parser.add_argument("--faults", action="store_true", help="for tests: a log of requests, and errors on demand")
    return parser


if __name__ == "__main__":
    sys.exit(main())
