"""Every `FINETUNING_` variable of the environment: its name, its default, what it means and what it may be.

    >>> Settings.read("processes").processes  # with FINETUNING_PROCESSES=2
    2

`python -m finetuning.settings` prints the tables of docs/settings.md.
"""

import math
import os
import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from finetuning.errors import InfrastructureError

PREFIX = "FINETUNING_"
ROOT = Path(__file__).resolve().parents[1]

LOCAL = "local"
PUBLIC_HUB = "https://huggingface.co"


class Kind(Enum):
    """What holds for a variable beside its value."""

    # All steps of a run share it, and it is not a secret: jobs of a cluster are told it, and its dashboard shows it.
    RUN = "run"
    # Folders, separated by colons, or an address; a relative one begins where the process does.
    FOLDERS = "folders"
    TESTS = "tests"


def one_of(*allowed: str) -> BeforeValidator:
    """Return a rule: the text is one of these words."""

    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is neither {' nor '.join(allowed)}; write one of them.")
        return text

    return BeforeValidator(check)


def hub_address(text: str) -> str:
    """Return `local`, or the address of a hub without a slash at its end.

    Raises:
        ValueError: it is something else.
    """
    if text != LOCAL and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", text):
        shown = re.sub("//.*@", "//…@", text)
        raise ValueError(f"{shown!r} is neither local nor the address of a hub; write local, or {PUBLIC_HUB}.")
    return text.rstrip("/")


def number(unit: str, example: str) -> BeforeValidator:
    """Return a rule: the text is a number of at most six digits before the point, as in the example."""

    def check(text: str) -> float:
        if not re.fullmatch(r"\d{1,6}(\.\d+)?", text):
            raise ValueError(f"{text!r} is not a number of {unit}; write {example}.")
        return float(text)

    return BeforeValidator(check)


def seconds_over_0(text: str) -> float:
    """Return a time that is over 0 and ends.

    Raises:
        ValueError: it is something else.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds; write 600.")
    return seconds


def processes_of(text: str) -> int:
    """Return a whole number over 0.

    Raises:
        ValueError: it is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a number of processes; write 1, or the number of GPUs.")
    return int(text)


def is_1(text: str) -> bool:
    """Return whether it is 1 and not 0.

    Raises:
        ValueError: it is neither.
    """
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is neither 1, for a smoke run, nor 0; write one of them.")
    return text == "1"


def folders_of(text: str) -> tuple[Path, ...]:
    """Return the folders that colons separate, with `~` as the user's home."""
    return tuple(Path(name).expanduser() for name in text.split(":") if name)


class Settings(BaseModel):
    """The variables' values, each under its name without the prefix and in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source_hub: Annotated[str, BeforeValidator(hub_address), Kind.RUN] = Field(
        PUBLIC_HUB,
        description="where models and data are read from: the address of a hub or of a mirror, or `local` "
        "([publishing.md](publishing.md#two-hubs))",
    )
    source_token: str = Field(
        "",
        description="token for reading there, where `HF_TOKEN` is for another address; a secret "
        "([publishing.md](publishing.md#two-hubs))",
    )
    hub: Annotated[str, BeforeValidator(hub_address), Kind.RUN] = Field(
        LOCAL, description="where models are published: `local`, or the address of a hub"
    )
    hub_state: Annotated[str, Kind.RUN, Kind.FOLDERS] = Field(str(ROOT / ".hub"), description="folder of the local hub")
    hub_deadline: Annotated[float, BeforeValidator(seconds_over_0), Kind.RUN] = Field(
        600.0, description="seconds that a publication waits for a hub that is out ([outages.md](outages.md))"
    )
    retry_seconds: Annotated[float, number("seconds", "30"), Kind.RUN] = Field(
        30.0,
        description="seconds until a step is tried again that met a network or hub that was out; then about three and "
        "seven times as long",
    )
    artifacts: Annotated[str, Kind.RUN, Kind.FOLDERS] = Field(
        str(ROOT / "artifacts"),
        description="folder of the artifacts, or an address such as `s3://bucket/name` "
        "([operations.md](operations.md#artifacts-on-object-storage))",
    )
    artifacts_cache: str = Field(
        str(ROOT / ".cache" / "artifacts"),
        description="folder of the artifacts that this machine uses, where they are at an address",
    )
    artifacts_cache_gb: Annotated[float, number("gigabytes", "50")] = Field(
        50.0, description="gigabytes that such a folder may hold"
    )
    feedback: Annotated[str, Kind.RUN, Kind.FOLDERS] = Field(
        str(ROOT / "feedback"), description="folder of what people said of answers ([assistant.md](assistant.md))"
    )
    recipes: Annotated[tuple[Path, ...], BeforeValidator(folders_of), Kind.RUN, Kind.FOLDERS] = Field(
        (), description="further folders with recipes, separated by `:`"
    )
    smoke: Annotated[bool, BeforeValidator(is_1), Kind.RUN] = Field(
        False,
        description="`1` for a smoke run: few rows, few steps, in folders and repos of its own ([ci.md](ci.md))",
    )
    require: Annotated[Literal["any", "cuda"], one_of("any", "cuda"), Kind.RUN] = Field(
        "any", description="`cuda` to refuse a machine without a GPU, instead of training slowly on its CPU"
    )
    executor: Annotated[Literal["local", "ray"], one_of("local", "ray"), Kind.RUN] = Field(
        "local",
        description="`ray`: every step is a job of the Ray cluster that `RAY_ADDRESS` names "
        "([cluster.md](cluster.md#steps-on-a-cluster))",
    )
    launcher: Annotated[Literal["local", "ray"], one_of("local", "ray"), Kind.RUN] = Field(
        "local", description="`ray` to train on the Ray cluster at `RAY_ADDRESS` ([cluster.md](cluster.md))"
    )
    processes: Annotated[int, BeforeValidator(processes_of), Kind.RUN] = Field(
        1,
        description="processes that train together, one a GPU, for recipes that do not say it in `resources.workers`",
    )
    gpu_hour_price: Annotated[float, number("units of money", "2.50"), Kind.RUN] = Field(
        0.0,
        description="price of an hour of one GPU, or of a machine without one, in any currency: the leaderboard "
        "multiplies trainings by it ([evaluation.md](evaluation.md#leaderboard)). `0`: it shows hours alone",
    )
    leaderboard_repo: Annotated[str, Kind.RUN] = Field(
        "",
        description="data set repo, such as `my-lab/leaderboard`, where the leaderboard is published; empty publishes "
        "it nowhere ([evaluation.md](evaluation.md#leaderboard))",
    )
    judge_key: str = Field(
        "",
        description="key for the endpoint of a recipe's `evaluation.judge`; a secret "
        "([evaluation.md](evaluation.md#a-judge))",
    )
    webhook: str = Field(
        "", description="where failed runs and failed verdicts are posted; a secret ([operations.md](operations.md))"
    )
    ui: str = Field("", description="address of the UI, for links in such messages")

    screenshots: Annotated[str, Kind.TESTS] = Field("", description="folder in which pictures of the docs are made")
    ray: Annotated[str, Kind.TESTS] = Field("", description="`1` to train on a Ray cluster of this machine as well")
    ray_partitions: Annotated[int, Kind.TESTS] = Field(
        0,
        description="partitions of a backfill on a Ray cluster that loses a node ([cluster.md](cluster.md))",
    )
    runs: Annotated[int, Kind.TESTS] = Field(
        8, description="runs that a deployment launches at once ([team.md](team.md))"
    )
    kills: Annotated[int, Kind.TESTS] = Field(2, description="random moments at which a training is killed")

    @classmethod
    def of(cls, **texts: str) -> Self:
        """Return the settings with these values, written as in the environment; the others keep their defaults.

        Raises:
            InfrastructureError: one or more of them are wrong; the text names each, a line each.
        """
        try:
            return cls.model_validate(texts)
        except ValidationError as error:
            wrong = [(str(each["loc"][0]), each["msg"].removeprefix("Value error, ")) for each in error.errors()]
            raise InfrastructureError("\n".join(f"{variable(name)}: {told}" for name, told in wrong)) from None

    @classmethod
    def read(cls, *names: str) -> Self:
        """Return the settings with the values that the environment has for these names; an empty one is the default.

        Only what is named is read, so that a wrong value stops what needs it and nothing else.

        Raises:
            InfrastructureError: one or more of them are wrong.
        """
        return cls.of(**{name: value for name in names if (value := os.environ.get(variable(name)))})


def variable(name: str) -> str:
    """Return the name of the setting's environment variable."""
    return PREFIX + name.upper()


def text_of(name: str) -> str:
    """Return the setting as it is written in the environment, unchecked, or its default where it is empty or missing.

    Resources take texts: each checks its own when a step uses it, whose failure then has the message.
    """
    return os.environ.get(variable(name)) or default_of(name)


def source_token_of(source: str, hub: str) -> str:
    """Return the variable whose token is sent to the hub that is read from, where another one may be published to.

    HF_TOKEN belongs to the address that is published to. It is sent to the one that is read from where the two are the
    same, or nothing is published to an address.
    """
    same = source.rstrip("/").lower() == hub.rstrip("/").lower()
    return "HF_TOKEN" if not is_set("source_token") and (same or hub == LOCAL) else variable("source_token")


def is_set(name: str) -> bool:
    """Return whether the environment has a value for it."""
    return bool(os.environ.get(variable(name)))


def default_of(name: str) -> str:
    """Return the default as it would be written in the environment."""
    default = Settings.model_fields[name].default
    if isinstance(default, tuple):
        return ":".join(map(str, default))
    return f"{default:g}" if isinstance(default, (bool, int, float)) else default


def names_of(*kinds: Kind) -> list[str]:
    """Return the settings that are of all these kinds."""
    return [name for name, field in Settings.model_fields.items() if all(kind in field.metadata for kind in kinds)]


def table(names: list[str]) -> str:
    """Return a Markdown table of these settings."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name in names:
        default = default_of(name).removeprefix(f"{ROOT}/")
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{variable(name)}` | {shown} | {Settings.model_fields[name].description} |")
    return "\n".join(rows)


def tables() -> str:
    """Return the tables of docs/settings.md."""
    tests = names_of(Kind.TESTS)
    return f"{table([name for name in Settings.model_fields if name not in tests])}\n\nFor tests:\n\n{table(tests)}\n"


if __name__ == "__main__":
    print(tables(), end="")
