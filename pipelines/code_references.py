"""Link each asset to its code: on GitHub or GitLab where the checkout was cloned from there, else to the file.

assets/raw_dataset.py -> https://github.com/OWNER/REPO/blob/COMMIT/assets/raw_dataset.py#L36
"""

import re
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path

import dagster as dg

from finetuning.recipe.loading import find
from finetuning.settings import ROOT

# Whatever stands before the host, a token of an address that was cloned with one included, is left out.
REMOTE = re.compile(r"(?:\w+://)?(?:[^@/]*@)?([\w.-]+)(?::\d+)?[:/]/?([\w./~-]+?)(?:\.git)?/?")
PLACES = {"github": "blob", "gitlab": "-/blob"}
# Links to code are a beta feature of Dagster 1.13.
warnings.filterwarnings("ignore", "Class `(CodeReferences|LocalFile|UrlCode)", category=dg.BetaWarning)


def linked(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return the asset with links to its code; the asset `recipe` gets one to each recipe."""
    name = spec.key.to_user_string()
    if name == "recipe":
        references = [reference(path, label=partition) for partition, path in find().items()]
    else:
        own = ROOT / "assets" / f"{name}.py"
        file = own if own.exists() else own.with_name("external_assets.py")
        references = [reference(file, line_of(name, file))]
    return spec.merge_attributes(
        metadata={"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=references)}
    )


def line_of(name: str, file: Path) -> int:
    """Return the line, from 1, on which the file first says how the asset is made or named."""
    lines = file.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if re.search(rf'^def {name}\(|"{name}"', line))


def reference(
    file: Path, line: int | None = None, label: str | None = None
) -> dg.UrlCodeReference | dg.LocalFileCodeReference:
    """Return the link to one file."""
    address = address_of_root()
    if address and file.resolve().is_relative_to(ROOT):
        place = f"{address}/{file.resolve().relative_to(ROOT)}" + (f"#L{line}" if line else "")
        return dg.UrlCodeReference(url=place, label=label)
    return dg.LocalFileCodeReference(file_path=str(file), line_number=line, label=label)


@cache
def address_of_root() -> str | None:
    """Return where the commit of this checkout is shown; None where no remote is known to have it."""
    if not (ROOT / ".git").exists() or not git("branch", "-r", "--contains", "HEAD"):
        return None
    return address(git("remote", "get-url", "origin"), git("rev-parse", "HEAD"))


def address(remote: str, commit: str) -> str | None:
    """Return the page that shows a repo's files, from the remote's address; None for a host that is not known."""
    found = REMOTE.fullmatch(remote)
    host = next((host for host in PLACES if found and host in found[1]), None)
    return f"https://{found[1]}/{found[2]}/{PLACES[host]}/{commit}" if found and host else None


def git(*arguments: str) -> str:
    """Return what git says of this checkout; an empty text where there is no git, or it refuses."""
    if not shutil.which("git"):
        return ""
    said = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else ""
