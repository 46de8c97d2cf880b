"""The model hub: the one place that knows its address and token, and the only one that publishes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from finetuning.errors import InfrastructureError
from finetuning.settings import Settings

if TYPE_CHECKING:
    pass
from resources.hub_client.connection import HubConnection

LOCAL = "local"


class Hub(dg.ConfigurableResource):
    """The hub that data and models come from and go to.

    `address` is `local`, a server on loopback that speaks the Hub's HTTP API and keeps its state in the folder
    `state`, or an address such as the public Hub's. The token comes from HF_TOKEN and is handed to the client alone.
    """

    address: str = LOCAL
    state: str = ".hub"
    deadline: str = "600"

    def seconds(self) -> float:
        """How long an outage of the hub may last before a publication fails.

        Raises:
            FinetuningError: `deadline` is no such number.
        """
        return Settings.of(hub_deadline=self.deadline).hub_deadline

    @contextmanager
    def connect(self, log: Callable[[str], None] | None = None, api_only: bool = False) -> Iterator[HubConnection]:
        """A connection that is good for as long as the block lasts; starts the local hub when it is not running.

        Args:
            log: is told of every try that is made again.
            api_only: whether the hub is asked through the connection's `api` and nothing else. It then may be another
                than this process began with, which `datasets` and `transformers` do not allow.

        Raises:
            FinetuningError: the deadline is no number, the local hub does not start, or this process began with
                another hub.
        """
        patience = {"deadline": self.seconds(), **({"log": log} if log else {})}
        if self.address != LOCAL:
            yield self._connection(
                self.address, self.address.rstrip("/"), os.environ.get("HF_TOKEN"), api_only, patience
            )
            return
        # A proxy that the user needs for other addresses never sees loopback.
        excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if "127.0.0.1" not in excepted:
            os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{excepted},127.0.0.1".strip(",")
        from resources.hub_server.local import local_hub, stay

        with local_hub(Path(self.state).absolute()) as server:
            stay(Path(self.state).absolute())  # other steps of this process, and libraries, keep its address
            yield self._connection(LOCAL, server.endpoint, server.token, api_only, patience)

    def _connection(
        self, name: str, endpoint: str, token: str | None, api_only: bool, patience: dict[str, Any]
    ) -> HubConnection:
        # The client and `datasets` read the address once, when they are first imported.
        os.environ["HF_ENDPOINT"] = endpoint
        from huggingface_hub import HfApi, constants

        if endpoint != constants.ENDPOINT and not api_only:
            raise InfrastructureError(
                f"This process began with the hub {constants.ENDPOINT} and cannot change to {endpoint}. Run the step "
                "in a process of its own (the default executor does)."
            )
        # False, unlike None, keeps the client from a token that lies in the user's home.
        return HubConnection(name, endpoint, HfApi(endpoint=endpoint, token=token or False), **patience)
