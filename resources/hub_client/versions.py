"""The versions of a repo that this pipeline publishes: which one is in force, and how an earlier one becomes it again.

>>> head_of(connection, "lab/phi-2-basic-maths")
Head(repo_id="lab/phi-2-basic-maths", commit="3f1c…", title="Publish phi-2 (0a1b…)", tag="0a1b…", report=Proof(…))
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from finetuning.digests import sha256
from finetuning.errors import FinetuningError
from finetuning.evaluation.report import Proof
from resources.hub_client.connection import ROLLED_BACK, HubConnection, Publication, is_same

REPORT = "evaluation/report.json"
WEIGHTS = "adapter_model.safetensors"
TITLE = re.compile(r"(?P<title>.+) \((?P<tag>[0-9a-f]{16})\)")


@dataclass(frozen=True)
class Head:
    """What a repo holds now."""

    repo_id: str
    commit: str
    title: str
    """The first line of the head's commit message."""
    authors: tuple[str, ...]
    tag: str | None
    """Of the version in force; None where the head is somebody's own commit."""
    report: Proof | None
    """The report that lies there; None where there is none that can be read."""

    @property
    def adapter(self) -> str | None:
        """The fingerprint of the adapter that the report is about."""
        return self.report.adapter if self.report else None


def head_of(connection: HubConnection, repo_id: str) -> Head | None:
    """Return the head of the main branch; None where there is no such repo, or none that this account sees.

    Raises:
        FinetuningError: the hub cannot be reached, or refuses the token.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    def look() -> Head | None:
        try:
            newest = connection.api.list_repo_commits(repo_id)[0]
        except RepositoryNotFoundError:
            return None
        made = TITLE.fullmatch(newest.title)
        report = report_at(connection, repo_id, newest.commit_id)
        tag = made["tag"] if made else None
        return Head(repo_id, newest.commit_id, newest.title, tuple(newest.authors), tag, report)

    return connection.patiently(lambda ask: ask(look), repo_id)


def report_at(connection: HubConnection, repo_id: str, commit: str) -> Proof | None:
    """Return the report that the repo holds at that commit; None where there is none, or another file of that name."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with TemporaryDirectory() as folder:
        try:
            path = connection.api.hf_hub_download(repo_id, REPORT, revision=commit, local_dir=folder)
            return Proof.model_validate_json(Path(path).read_bytes())
        except (RemoteEntryNotFoundError, ValidationError):
            return None


def tags_of(connection: HubConnection, repo_id: str) -> dict[str, str] | None:
    """Return the commit of each tag; None where there is no such repo, or none that this account sees.

    Raises:
        FinetuningError: the hub cannot be reached, or refuses the token.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    def look() -> dict[str, str] | None:
        try:
            return {ref.name: ref.target_commit for ref in connection.api.list_repo_refs(repo_id).tags}
        except RepositoryNotFoundError:
            return None

    return connection.patiently(lambda ask: ask(look), repo_id)


def download(connection: HubConnection, head: Head, folder: Path) -> None:
    """Download the files of the repo's head to `folder`, those of its evaluation left out.

    Raises:
        FinetuningError: the hub cannot be reached, refuses the token, or holds other weights than the report is about.
    """

    def fetch() -> None:
        connection.api.snapshot_download(
            head.repo_id, revision=head.commit, local_dir=folder, ignore_patterns=["evaluation/*", "runs/*"]
        )

    connection.patiently(lambda ask: ask(fetch), head.repo_id)
    known, weights = (head.report.files if head.report else {}).get(WEIGHTS), folder / WEIGHTS
    if known and not (weights.is_file() and sha256(weights) == known):
        raise FinetuningError(
            f"{head.repo_id} on {connection.endpoint}: the report on the version that is published now is about "
            f"weights with the sha256 {known}, and other ones lie there, or none."
        )


def roll_back(
    connection: HubConnection, repo_id: str, tag: str, title: str, recorded: Mapping[str, str] | None = None
) -> Publication:
    """Make the version `tag` the head again, by a new commit that holds exactly its files, unless it is the head.

    Args:
        title: what the pipeline calls its commits in this repo, `Publish phi-2`.
        recorded: the sha256 of each file that was published, by its path, where that was recorded.

    Raises:
        FinetuningError: there is no such version, its own report does not say that it passed, or is about other
            weights, not all of its files are there and whole, or the head is somebody else's commit.
    """

    def go_back() -> Publication:  # may be carried out again: it looks at what is there first
        versions = {ref.name: ref.target_commit for ref in connection.api.list_repo_refs(repo_id).tags}
        history = connection.api.list_repo_commits(repo_id)
        require_version(connection, repo_id, tag, title, versions)
        connection.refuse_foreign_head(repo_id, history, title)
        now = TITLE.fullmatch(history[0].title)
        require_whole(connection, repo_id, versions[tag], recorded or {})
        if now and now["tag"] == tag:
            return Publication(repo_id, history[0].commit_id, tag, created=False)
        commit = copy_version(connection, repo_id, versions[tag], parent=history[0].commit_id, title=f"{title} ({tag})")
        return Publication(repo_id, commit, tag, created=True)

    return connection.patiently(lambda ask: ask(go_back), repo_id)


def require_version(connection: HubConnection, repo_id: str, tag: str, title: str, versions: dict[str, str]) -> None:
    """Check that `tag` is a version that the pipeline published and that passed its own exam.

    Raises:
        FinetuningError: it is not.
    """
    where = f"{repo_id} on {connection.endpoint}"
    ours = [name for name in versions if re.fullmatch("[0-9a-f]{16}", name)]
    if tag not in ours:
        raise FinetuningError(
            f"{where} has no version {tag!r} to go back to; there are: {', '.join(sorted(ours)) or 'none'}."
        )
    made = connection.api.list_repo_commits(repo_id, revision=versions[tag])[0]
    if made.title != f"{title} ({tag})":
        raise FinetuningError(
            f"{where}: the tag {tag} is on commit {made.commit_id[:12]} ({made.title!r}), which was not made by this "
            "recipe. Put it back where it was, or choose another version."
        )
    report = report_at(connection, repo_id, versions[tag])
    if report is None or not report.verdict.passed:  # as a smoke run's never says
        raise FinetuningError(f"{where}: version {tag} holds no report with a passed verdict. Choose another version.")
    weights = report.files.get(WEIGHTS)
    there = sha256_at(connection, repo_id, versions[tag])
    if there is not None and there != weights:
        raise FinetuningError(
            f"{where}: the report of version {tag} is about weights with the sha256 {weights}, and those that lie "
            f"there have {there}. Choose another version."
        )


def require_whole(connection: HubConnection, repo_id: str, commit: str, recorded: Mapping[str, str]) -> None:
    """Download a version, and check that it has all that a model needs, each file as it was committed and published.

    Raises:
        FinetuningError: a file is missing, cannot be downloaded whole, or is not the one that was published.
    """
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    tree = connection.api.list_repo_tree(repo_id, recursive=True, revision=commit)
    there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    weights = [path for path in there if path.endswith(".safetensors")] or [WEIGHTS]
    needed = {"adapter_config.json" if WEIGHTS in weights else "config.json", *weights, *recorded}
    wrong = dict.fromkeys(sorted(needed - there.keys()), "is not there")
    for path, entry in sorted(there.items()):
        with TemporaryDirectory() as folder:
            try:
                file = Path(connection.api.hf_hub_download(repo_id, path, revision=commit, local_dir=folder))
            except (EntryNotFoundError, OSError) as error:
                if isinstance(error, HfHubHTTPError) and not isinstance(error, EntryNotFoundError):
                    raise  # what passes by itself
                wrong[path] = "cannot be downloaded whole"
                continue
            if not is_same(entry, file):
                wrong[path] = "is not what was committed"
            elif path in recorded and sha256(file) != recorded[path]:
                wrong[path] = "is not what was published"
    if wrong:
        what = ", ".join(f"{path} {reason}" for path, reason in wrong.items())
        raise FinetuningError(f"{repo_id} on {connection.endpoint}: the version is not whole: {what}. Choose another.")


def adapter_of(connection: HubConnection, repo_id: str, tag: str) -> str | None:
    """Return the fingerprint of the adapter that the version's report is about; None where there is none."""
    from huggingface_hub.errors import RevisionNotFoundError

    def look() -> str | None:
        try:
            report = report_at(connection, repo_id, tag)
        except RevisionNotFoundError:
            return None
        return report.adapter if report else None

    return connection.patiently(lambda ask: ask(look), repo_id)


def version_about(connection: HubConnection, repo_id: str, adapter: str | None) -> str | None:
    """Return the newest version of the repo whose report is about this adapter; None where there is none."""
    history = connection.patiently(lambda ask: ask(lambda: connection.api.list_repo_commits(repo_id)), repo_id)
    tags = [made["tag"] for made in (TITLE.fullmatch(commit.title) for commit in history) if made]
    return next((tag for tag in tags if adapter and adapter_of(connection, repo_id, tag) == adapter), None)


def sha256_at(connection: HubConnection, repo_id: str, commit: str) -> str | None:
    """Return the sha256 of the adapter's weights in the repo at that commit; None where it holds no adapter."""
    from huggingface_hub import RepoFile

    found = connection.api.get_paths_info(repo_id, [WEIGHTS], revision=commit)
    return next((entry.lfs.sha256 for entry in found if isinstance(entry, RepoFile) and entry.lfs), None)


def copy_version(connection: HubConnection, repo_id: str, commit: str, parent: str, title: str) -> str:
    """Commit exactly the files of `commit` to the repo; return the new head."""
    from huggingface_hub import CommitOperationCopy, CommitOperationDelete, RepoFile

    then, now = (
        {
            entry.path: entry.blob_id
            for entry in connection.api.list_repo_tree(repo_id, recursive=True, revision=at)
            if isinstance(entry, RepoFile)
        }
        for at in (commit, parent)
    )
    operations = [
        *(CommitOperationCopy(path, path, src_revision=commit) for path in then if then[path] != now.get(path)),
        *(CommitOperationDelete(path) for path in now.keys() - then.keys()),
    ]
    return connection.api.create_commit(
        repo_id,
        operations,
        commit_message=title,
        commit_description=f"{ROLLED_BACK} to the version {commit}, from {parent}.",
        parent_commit=parent,
    ).oid
