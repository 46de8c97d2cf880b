"""The model hub: the one place that knows its address and token, and the only one that publishes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import dagster as dg

from finetuning.errors import InfrastructureError
from finetuning.settings import LOCAL, PUBLIC_HUB, Settings, source_token_of, text_of
from resources.hub_client.connection import HubConnection

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class Hub(dg.ConfigurableResource):
    """The hub that models are published to, and the one that models and data are read from.

    Both `address` and `source` are `local`, a server on loopback that speaks the Hub's HTTP API and keeps its state in
    the folder `state`, or an address such as the public Hub's. Tokens come from the environment and are handed to the
    client alone, each to the hub that it is for.
    """

    address: str = LOCAL
    source: str = PUBLIC_HUB
    state: str = ".hub"
    deadline: str = "600"

    @classmethod
    def of_environment(cls) -> Self:
        """Return the hubs that the environment names."""
        return cls(
            address=text_of("hub"),
            source=text_of("source_hub"),
            state=text_of("hub_state"),
            deadline=text_of("hub_deadline"),
        )

    def seconds(self) -> float:
        """Return how long an outage of the hub may last before a publication fails.

        Raises:
            FinetuningError: `deadline` is not a number of seconds.
        """
        return Settings.of(hub_deadline=self.deadline).hub_deadline

    @contextmanager
    def connect(self, log: Callable[[str], None] | None = None) -> Iterator[HubConnection]:
        """Yield a connection to the hub that is published to; start the local one when it is not running.

        It is spoken to through the connection's `api` alone, so that it may be another than libraries read from.

        Args:
            log: is told of every try that is made again.

        Raises:
            FinetuningError: the deadline or the address is none, or the local hub does not start.
        """
        deadline = self.seconds()
        address = Settings.of(hub=self.address).hub
        told: dict[str, Any] = {"log": log} if log else {}
        with self._reached(address, os.environ.get("HF_TOKEN")) as (endpoint, token):
            yield HubConnection(self.address, endpoint, client_of(endpoint, token), deadline, **told)

    @contextmanager
    def connect_source(self, api_only: bool = False) -> Iterator["HfApi"]:
        """Yield the client of the hub that models and data are read from.

        Args:
            api_only: whether the hub is asked through this client and nothing else. It then may be another than this
                process began with, which `datasets` and `transformers` do not allow.

        Raises:
            FinetuningError: the address is none, the local hub does not start, or this process began with another hub.
        """
        address = Settings.of(source_hub=self.source).source_hub
        own = source_token_of(address, Settings.of(hub=self.address).hub) != "HF_TOKEN"
        given = text_of("source_token") if own else os.environ.get("HF_TOKEN")
        with self._reached(address, given) as (endpoint, token):
            if not api_only:
                libraries_read_from(endpoint)
            yield client_of(endpoint, token)

    @contextmanager
    def _reached(self, address: str, token: str | None) -> Iterator[tuple[str, str | None]]:
        """Yield the endpoint of a hub and the token for it; of the local one its own."""
        if address != LOCAL:
            yield address, token
            return
        # A proxy that the user needs for other addresses never sees loopback.
        excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if "127.0.0.1" not in excepted:
            os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{excepted},127.0.0.1".strip(",")
        from resources.hub_server.local import local_hub, stay

        with local_hub(Path(self.state).absolute()) as server:
            stay(Path(self.state).absolute())  # other steps of this process, and libraries, keep its address
            yield server.endpoint, server.token


def environment_of_libraries(source: str, hub: str) -> dict[str, str]:
    """Return what libraries read once that fetch by themselves, such as benchmarks' rows: from where, with which token.

    Args:
        source: FINETUNING_SOURCE_HUB. The local one's address is known when it runs.
        hub: FINETUNING_HUB.
    """
    address = {} if source == LOCAL else {"HF_ENDPOINT": source.rstrip("/")}
    return address | ({} if source_token_of(source, hub) == "HF_TOKEN" else {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"})


def libraries_read_from(endpoint: str) -> None:
    """Make it the hub that this process's libraries read from.

    Raises:
        InfrastructureError: this process began with another one.
    """
    # The client and `datasets` read the address once, when they are first imported.
    os.environ["HF_ENDPOINT"] = endpoint
    from huggingface_hub import constants

    if endpoint != constants.ENDPOINT:
        raise InfrastructureError(
            f"This process began with the hub {constants.ENDPOINT} and cannot change to {endpoint}. Run the step "
            "in a process of its own (the default executor does)."
        )


def client_of(endpoint: str, token: str | None) -> "HfApi":
    """Return the hub's own client for an address."""
    from huggingface_hub import HfApi

    # False, unlike None, keeps the client from a token that lies in the user's home or in HF_TOKEN.
    return HfApi(endpoint=endpoint, token=token or False)
