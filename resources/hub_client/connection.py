"""A hub while it is spoken to: whose account, which repos, and publishing into one of them."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from finetuning.digests import sha256
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.settings import variable

if TYPE_CHECKING:
    from huggingface_hub import GitCommitInfo, HfApi
    from huggingface_hub.hf_api import RepoFile

    from resources.hub_client.retries import Patience


T = TypeVar("T")

Files = Mapping[str, Path]  # path in the repo -> local file

ROLLED_BACK = "Rolled back"  # how the description of such a commit begins

TAG = re.compile("[0-9a-f]{16}")  # a fingerprint

SLOWEST = 5e5  # bytes per second; a slower network is taken for one that is out


@dataclass(frozen=True)
class Publication:
    """What lies on the hub now; `created` is False when the very same was there already."""

    repo_id: str
    commit: str
    tag: str
    created: bool


@dataclass(frozen=True)
class HubConnection:
    """A hub that answers at `endpoint`; `name` stays the same when a local hub comes back on another port.

    What passes by itself (5xx, 429, a lost or silent connection) is waited for and tried again until `deadline`
    seconds are over, after `pause` seconds at first; `log` is told each time. An answer may take `timeout` seconds.
    """

    name: str
    endpoint: str
    api: "HfApi"
    deadline: float = 600.0
    timeout: float = 60.0
    pause: float = 1.0
    log: Callable[[str], None] = logging.getLogger(__name__).warning
    kind: Literal["model", "dataset"] = "model"
    """Of the repos that are spoken of."""

    def owner(self) -> str:
        """Return the name of the account that the token belongs to.

        Raises:
            FinetuningError: there is no token, or the hub does not know it.
        """
        if not self.api.token:
            raise InfrastructureError(
                f"Publishing to {self.endpoint} needs a token, and HF_TOKEN is not set. Make a token with write access "
                "in the account settings of the hub and export HF_TOKEN before the run."
            )
        return self.patiently(lambda ask: ask(self.api.whoami)["name"], "the account")

    def repo_id(self, repo: str) -> str:
        """Return `repo` with the owner's namespace, where it names none."""
        return repo if "/" in repo else f"{self.owner()}/{repo}"

    def has(self, publication: Mapping[str, Any]) -> bool:
        """Return whether this hub has the publication still, and none of this pipeline's after it.

        Raises:
            FinetuningError: the hub does not answer, or not to this token.
        """
        return self.patiently(lambda ask: ask(lambda: self._has(publication)), publication["repo_id"])

    def is_public(self, repo_id: str) -> bool:
        """Return whether the repo is there and everybody may see it.

        Raises:
            FinetuningError: the hub does not answer, or not to this token.
        """
        return self.patiently(lambda ask: ask(lambda: self._is_public(repo_id)), repo_id)

    def publish(
        self, repo_id: str, files: Files, *, tag: str, title: str, private: bool | None, onto: str | None = None
    ) -> Publication:
        """Make `repo_id` hold exactly `files` (path in the repo -> local file), by one commit with one tag.

        What is there already under this tag is left as it is. To the deadline come two seconds for each megabyte.

        Args:
            private: whether the repo is to be; None leaves one that is there as it is, and makes a private one.
            onto: the head that the new commit may follow, where it is not to be any other.

        Raises:
            FinetuningError: the token may not write, somebody else committed since the last publication, or the hub
                failed until the deadline; then the next call goes on from what this one has done.
        """

        def publish(ask: "Patience") -> Publication:
            ask(lambda: self._make_repo(repo_id, private))
            tags, base = ask(lambda: self._refs(repo_id))
            if tag in tags and ask(lambda: self._is_settled(repo_id, files, tags[tag], base)):
                return Publication(repo_id, tags[tag], tag, created=False)
            if onto not in (None, base):
                raise InfrastructureError(
                    f"{repo_id} on {self.endpoint} has changed meanwhile: its head is {base[:12]}, and what is to be "
                    f"published was compared with {str(onto)[:12]}. Run it again."
                )
            commit = ask(lambda: self._made(repo_id, files, tag, title, base))
            ask(lambda: self._tag(repo_id, tag, commit))
            return Publication(repo_id, commit, tag, created=True)

        return self.patiently(publish, repo_id, self.deadline + _seconds_to_send(files))

    def patiently(self, act: Callable[["Patience"], T], repo_id: str, deadline: float | None = None) -> T:
        """Return what `act` returns; it is handed the patience with which it is to ask."""
        from resources.hub_client.retries import Patience, single_tries

        deadline = deadline or self.deadline
        try:
            with single_tries(min(self.timeout, deadline)):
                return act(Patience(deadline, self.pause, self.log))
        except Exception as error:
            mistake = self._explained(error, repo_id)
        raise mistake  # out here: the client's own error may hold the token

    def _has(self, publication: Mapping[str, Any]) -> bool:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            tags, head = self._refs(publication["repo_id"])
        except RepositoryNotFoundError:
            return False
        # Below a later tag of the pipeline it is not in force; below somebody's own commit it is left in peace.
        later = head != publication["commit"] and any(
            commit == head and TAG.fullmatch(tag) for tag, commit in tags.items()
        )
        return tags.get(publication["tag"]) == publication["commit"] and not later

    def _is_public(self, repo_id: str) -> bool:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return not self.api.repo_info(repo_id, repo_type=self.kind).private
        except RepositoryNotFoundError:
            return False

    # What follows may be carried out again at any time: it looks at what is there first.

    def _make_repo(self, repo_id: str, private: bool | None) -> None:
        self.api.create_repo(repo_id, private=private is not False, repo_type=self.kind, exist_ok=True)
        if private is not None and self.api.repo_info(repo_id, repo_type=self.kind).private != private:
            self.api.update_repo_settings(repo_id, private=private, repo_type=self.kind)

    def _is_settled(self, repo_id: str, files: Files, tagged: str, head: str) -> bool:
        """Return whether the tagged commit stays: as head it holds the files, or somebody went back from it."""
        if tagged == head:
            return not self._differences(repo_id, head, files)
        return self.api.list_repo_commits(repo_id, revision=head, repo_type=self.kind)[0].message.startswith(
            ROLLED_BACK
        )

    def _made(self, repo_id: str, files: Files, tag: str, title: str, base: str) -> str:
        """Return the commit that holds exactly `files`: the head, or a new one on `base`, the head at the start."""
        head = self._refs(repo_id)[1]
        history = self.api.list_repo_commits(repo_id, revision=head, repo_type=self.kind)
        # A head that is made: a process died, or an answer was lost, between the commit and its tag.
        if self._is_made(repo_id, history[0], files, f"{title} ({tag})"):
            return head
        if head != base:
            raise InfrastructureError(
                f"{repo_id} on {self.endpoint} has changed meanwhile: {_named(history[0])} is its newest commit. Run "
                "it again."
            )
        self.refuse_foreign_head(repo_id, history, title)
        return self._committed(repo_id, files, f"{title} ({tag})", base)

    def _committed(self, repo_id: str, files: Files, message: str, parent: str) -> str:
        from huggingface_hub.errors import HfHubHTTPError

        try:
            head = self._commit(repo_id, files, message, parent)
        except HfHubHTTPError:
            # An earlier try may have been carried out after its time was up, or somebody else published the same.
            head = self._refs(repo_id)[1]
            newest = self.api.list_repo_commits(repo_id, revision=head, repo_type=self.kind)[0]
            if not self._is_made(repo_id, newest, files, message):
                raise
        if differences := self._differences(repo_id, head, files):
            raise InfrastructureError(
                f"{repo_id} on {self.endpoint}: commit {head[:12]} does not hold what was sent ({differences}), and "
                "gets no tag. Somebody else changed the repo meanwhile, or its .gitignore left files out. Run it again."
            )
        return head

    def _commit(self, repo_id: str, files: Files, message: str, parent: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        from resources.hub_client.retries import stopped_after

        stale = (
            set(self.api.list_repo_files(repo_id, revision=parent, repo_type=self.kind))
            - files.keys()
            - {".gitattributes"}
        )
        operations = [
            *(CommitOperationAdd(path, str(local)) for path, local in sorted(files.items())),
            *(CommitOperationDelete(path) for path in sorted(stale)),
        ]
        with stopped_after(self.timeout + _seconds_to_send(files)):
            return self.api.create_commit(
                repo_id, operations, commit_message=message, parent_commit=parent, repo_type=self.kind
            ).oid

    def _tag(self, repo_id: str, tag: str, commit: str) -> None:
        from huggingface_hub.errors import HfHubHTTPError

        tags = self._refs(repo_id)[0]
        if tags.get(tag) == commit:
            return
        try:
            if tag in tags:
                self.api.delete_tag(repo_id, tag=tag, repo_type=self.kind)
            self.api.create_tag(repo_id, tag=tag, revision=commit, repo_type=self.kind)
        except HfHubHTTPError:
            if self._refs(repo_id)[0].get(tag) != commit:
                raise

    def _is_made(self, repo_id: str, head: "GitCommitInfo", files: Files, message: str) -> bool:
        return head.title == message and not self._differences(repo_id, head.commit_id, files)

    def _differences(self, repo_id: str, commit: str, files: Files) -> str:
        """Return the names of the files, if any, that are not the same in the commit and in `files`."""
        from huggingface_hub.hf_api import RepoFile

        tree = self.api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type=self.kind)
        there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile) and entry.path != ".gitattributes"}
        same = {path for path, local in files.items() if path in there and is_same(there[path], local)}
        return ", ".join(sorted((there.keys() | files.keys()) - same))

    def _refs(self, repo_id: str) -> tuple[dict[str, str], str]:
        """Return the commit of each tag, and that of the main branch."""
        refs = self.api.list_repo_refs(repo_id, repo_type=self.kind)
        (head,) = [branch.target_commit for branch in refs.branches if branch.name == "main"]
        return {tag.name: tag.target_commit for tag in refs.tags}, head

    def _explained(self, error: Exception, repo_id: str) -> FinetuningError:
        from finetuning.hub_errors import explain

        return explain(error, repo_id, self.endpoint, has_token=bool(self.api.token), setting=variable("hub"))

    def refuse_foreign_head(self, repo_id: str, history: list["GitCommitInfo"], title: str) -> None:
        """Check that the newest commit is one of the pipeline's with that title, or the repo is as good as empty.

        Raises:
            FinetuningError: it is somebody's own, which a new version would overwrite.
        """
        head = history[0]
        ours = re.fullmatch(re.escape(title) + r" \([0-9a-f]{16}\)", head.title)
        untouched = len(history) == 1 and set(
            self.api.list_repo_files(repo_id, revision=head.commit_id, repo_type=self.kind)
        ) <= {
            ".gitattributes",
            "README.md",
        }
        if not ours and not untouched:
            by, other = ("this recipe", "hub.repo in the recipe") if self.kind == "model" else ("this pipeline", "repo")
            raise FinetuningError(
                f"{repo_id} on {self.endpoint}: its newest commit {_named(head)} was not made by {by}, and "
                f"publishing would overwrite it. Revert that commit, or name another {other}."
            )


def _seconds_to_send(files: Files) -> float:
    return sum(local.stat().st_size for local in files.values()) / SLOWEST


def _named(commit: "GitCommitInfo") -> str:
    return f"{commit.commit_id[:12]} ({commit.title!r} by {', '.join(commit.authors) or 'unknown'})"


def is_same(there: "RepoFile", local: Path) -> bool:
    """Return whether a file on the hub has the content of a local one, by the hash that the hub keeps of it."""
    from huggingface_hub.utils.sha import git_hash

    if there.size != local.stat().st_size:
        return False
    if not there.lfs:
        return there.blob_id == git_hash(local.read_bytes())
    return there.lfs.sha256 == sha256(local)
