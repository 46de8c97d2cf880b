"""The model hub: the one place that knows its address and token, and the only one that publishes."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from finetuning.errors import FinetuningError

if TYPE_CHECKING:
    from huggingface_hub import GitCommitInfo, HfApi

LOCAL = "local"
ROLLED_BACK = "Rolled back"  # how the description of such a commit begins
TAG = re.compile("[0-9a-f]{16}")  # a fingerprint


@dataclass(frozen=True)
class Publication:
    """What lies on the hub now; `created` is False when the very same was there already."""

    repo_id: str
    commit: str
    tag: str
    created: bool


@dataclass(frozen=True)
class HubConnection:
    """A hub that answers at `endpoint`; `name` stays the same when a local hub comes back on another port."""

    name: str
    endpoint: str
    api: "HfApi"

    def owner(self) -> str:
        """Name of the account that the token belongs to.

        Raises:
            FinetuningError: there is no token, or the hub does not know it.
        """
        if not self.api.token:
            raise FinetuningError(
                f"Publishing to {self.endpoint} needs a token, and HF_TOKEN is not set. Make a token with write access "
                "in the account settings of the hub and export HF_TOKEN before the run."
            )
        try:
            return self.api.whoami()["name"]
        except Exception as error:
            mistake = self._explained(error, "the account")
        raise mistake  # out here: the client's own error may hold the token

    def repo_id(self, repo: str) -> str:
        """`repo` with the owner's namespace, where it names none."""
        return repo if "/" in repo else f"{self.owner()}/{repo}"

    def has(self, publication: Mapping[str, Any]) -> bool:
        """Whether this hub has the publication still, and none of this pipeline's after it.

        Raises:
            FinetuningError: the hub does not answer, or not to this token.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            tags, head = self._refs(publication["repo_id"])
        except RepositoryNotFoundError:
            return False
        except Exception as error:
            mistake = self._explained(error, publication["repo_id"])
        else:
            # Below a later tag of the pipeline it is not in force; below somebody's own commit it is left in peace.
            later = head != publication["commit"] and any(
                commit == head and TAG.fullmatch(tag) for tag, commit in tags.items()
            )
            return tags.get(publication["tag"]) == publication["commit"] and not later
        raise mistake

    def is_public(self, repo_id: str) -> bool:
        """Whether the repo is there and everybody may see it."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return not self.api.repo_info(repo_id).private
        except RepositoryNotFoundError:
            return False

    def publish(self, repo_id: str, files: Mapping[str, Path], *, tag: str, title: str, private: bool) -> Publication:
        """The repo `repo_id` holding exactly `files` (path in the repo -> local file), as one commit with one tag.

        What is there already under this tag is left as it is.

        Raises:
            FinetuningError: the token may not write, or somebody else committed since the last publication.
        """
        try:
            self.api.create_repo(repo_id, private=private, exist_ok=True)
            if self.api.repo_info(repo_id).private != private:
                self.api.update_repo_settings(repo_id, private=private)
            return self._publish(repo_id, files, tag, title)
        except Exception as error:
            mistake = self._explained(error, repo_id)
        raise mistake  # out here: the client's own error may hold the token

    def _publish(self, repo_id: str, files: Mapping[str, Path], tag: str, title: str) -> Publication:
        tags, commit = self._refs(repo_id)
        if tags.get(tag) == commit:
            return Publication(repo_id, commit, tag, created=False)
        history = self.api.list_repo_commits(repo_id)
        if tag in tags and history[0].message.startswith(ROLLED_BACK):
            return Publication(repo_id, tags[tag], tag, created=False)  # what somebody went back from is left behind
        # A head of this very title: the process died between its commit and its tag.
        if history[0].title != f"{title} ({tag})":
            self.refuse_foreign_head(repo_id, history, title)
            commit = self._commit(repo_id, files, f"{title} ({tag})", parent=commit)
        if tag in tags:
            self.api.delete_tag(repo_id, tag=tag)
        self.api.create_tag(repo_id, tag=tag, revision=commit)
        return Publication(repo_id, commit, tag, created=True)

    def _commit(self, repo_id: str, files: Mapping[str, Path], message: str, parent: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        stale = set(self.api.list_repo_files(repo_id)) - files.keys() - {".gitattributes"}
        operations = [
            *(CommitOperationAdd(path, str(local)) for path, local in sorted(files.items())),
            *(CommitOperationDelete(path) for path in sorted(stale)),
        ]
        return self.api.create_commit(repo_id, operations, commit_message=message, parent_commit=parent).oid

    def _refs(self, repo_id: str) -> tuple[dict[str, str], str]:
        """The commit of each tag, and that of the main branch."""
        refs = self.api.list_repo_refs(repo_id)
        (head,) = [branch.target_commit for branch in refs.branches if branch.name == "main"]
        return {tag.name: tag.target_commit for tag in refs.tags}, head

    def _explained(self, error: Exception, repo_id: str) -> FinetuningError:
        from finetuning.hub_errors import explain

        return explain(error, repo_id, self.endpoint, has_token=bool(self.api.token))

    def refuse_foreign_head(self, repo_id: str, history: list["GitCommitInfo"], title: str) -> None:
        """Nothing, when the newest commit is one of the pipeline's with that title, or the repo is as good as empty.

        Raises:
            FinetuningError: it is somebody's own, which a new version would overwrite.
        """
        head = history[0]
        ours = re.fullmatch(re.escape(title) + r" \([0-9a-f]{16}\)", head.title)
        untouched = len(history) == 1 and set(self.api.list_repo_files(repo_id)) <= {".gitattributes", "README.md"}
        if not ours and not untouched:
            raise FinetuningError(
                f"{repo_id} on {self.endpoint}: its newest commit {head.commit_id[:12]} ({head.title!r} by "
                f"{', '.join(head.authors) or 'unknown'}) was not made by this recipe, and publishing would overwrite "
                "it. Revert that commit, or name another hub.repo in the recipe."
            )


class Hub(dg.ConfigurableResource):
    """The hub that data and models come from and go to.

    `address` is `local`, a server on loopback that speaks the Hub's HTTP API and keeps its state in the folder
    `state`, or an address such as the public Hub's. The token comes from HF_TOKEN and is handed to the client alone.
    """

    address: str = LOCAL
    state: str = ".hub"

    @contextmanager
    def connect(self) -> Iterator[HubConnection]:
        """A connection that is good for as long as the block lasts; starts the local hub when it is not running."""
        if self.address != LOCAL:
            yield self._connection(self.address, self.address.rstrip("/"), os.environ.get("HF_TOKEN"))
            return
        # A proxy that the user needs for other addresses never sees loopback.
        excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if "127.0.0.1" not in excepted:
            os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{excepted},127.0.0.1".strip(",")
        from resources.hub_server.local import local_hub

        with local_hub(Path(self.state).absolute()) as server:
            yield self._connection(LOCAL, server.endpoint, server.token)

    def _connection(self, name: str, endpoint: str, token: str | None) -> HubConnection:
        # The client and `datasets` read the address once, when they are first imported.
        os.environ["HF_ENDPOINT"] = endpoint
        from huggingface_hub import HfApi, constants

        if endpoint != constants.ENDPOINT:
            raise FinetuningError(
                f"This process began with the hub {constants.ENDPOINT} and can not change to {endpoint}. Run the step "
                "in a process of its own (the default executor does)."
            )
        # False, unlike None, keeps the client from a token that lies in the user's home.
        return HubConnection(name, endpoint, HfApi(endpoint=endpoint, token=token or False))
