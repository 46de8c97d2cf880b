"""Shell lines on a card that have its code read from the hub where the repo is; none for the public Hub.

>>> print(shell_lines(Endpoints("local", "local"), "local/phi-2", "0123456789abcdef"))
export HF_ENDPOINT="http://127.0.0.1:$(cat "${FINETUNING_HUB_STATE:-.hub}/port")"
export HF_TOKEN="$(cat "${FINETUNING_HUB_STATE:-.hub}/token")"

A local hub writes its port and its token into its folder: no card names them, and the lines stay right on another port.
"""

from dataclasses import dataclass
from typing import Self

from finetuning.settings import LOCAL, PUBLIC_HUB, hub_address, variable

FOLDER = f"${{{variable('hub_state')}:-.hub}}"
LOCAL_ENDPOINT = f'"http://127.0.0.1:$(cat "{FOLDER}/port")"'
LOCAL_TOKEN = f'"$(cat "{FOLDER}/token")"'


@dataclass(frozen=True)
class Endpoints:
    """The hubs of a repo and of the base model that it needs: `local`, or an address."""

    repo: str = PUBLIC_HUB
    base: str = PUBLIC_HUB

    @classmethod
    def of(cls, repo: str, base: str) -> Self:
        """Return them by their settings, which may have a slash at the end."""
        return cls(hub_address(repo), hub_address(base))

    @property
    def is_local(self) -> bool:
        """Whether the repo is on a local hub."""
        return self.repo == LOCAL

    @property
    def is_public(self) -> bool:
        """Whether the repo is on the public Hub, which every library reads from by itself."""
        return self.repo == PUBLIC_HUB

    @property
    def are_two(self) -> bool:
        """Whether no one address has both the repo and its base model."""
        return not self.is_public and self.repo != self.base


def code_source(endpoints: Endpoints, repo_id: str) -> str:
    """Return what the code on a card loads: the repo, or the folder that `shell_lines` downloads it to."""
    return f"./{folder_of(repo_id)}" if endpoints.are_two else repo_id


def shell_lines(endpoints: Endpoints, repo_id: str, tag: str) -> str:
    """Return the lines to run before the code on a card; empty for the public Hub.

    Libraries read from one address alone. Where the base model is on another hub, the repo is downloaded first.
    """
    if endpoints.is_public:
        return ""
    if not endpoints.are_two:
        return "\n".join(f"export {setting}" for setting in variables(endpoints.repo))
    lines = [f"{' '.join(variables(endpoints.repo))} \\\n    {download_line(repo_id, tag)}"]
    if endpoints.base != PUBLIC_HUB:
        lines += [f"export {setting}" for setting in variables(endpoints.base)]
    return "\n".join(lines)


def download_line(repo_id: str, tag: str) -> str:
    """Return the command that downloads a version of a repo to a folder with the repo's own name."""
    return f"hf download {repo_id} --revision {tag} --local-dir ./{folder_of(repo_id)}"


def variables(hub: str) -> list[str]:
    """Return the settings, as a shell takes them, by which Hugging Face's libraries read from a hub."""
    if hub == LOCAL:
        return [f"HF_ENDPOINT={LOCAL_ENDPOINT}", f"HF_TOKEN={LOCAL_TOKEN}"]
    return [f"HF_ENDPOINT={hub}"]


def folder_of(repo_id: str) -> str:
    """Return the folder that a repo is downloaded to: it has the repo's own name."""
    return repo_id.rpartition("/")[2]
