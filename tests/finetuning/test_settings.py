"""Every variable of the environment is declared once, checked when it is read, and in the page of the docs."""

import re
import subprocess
from pathlib import Path

import pytest

from finetuning.errors import InfrastructureError
from finetuning.settings import Kind, Settings, hub_address, is_set, names_of, tables, text_of, variable

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("assets", "finetuning", "pipelines", "resources")


def tracked(*places: str) -> list[Path]:
    """Return the files of these places that git knows, or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *places]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def words(text: str) -> set[str]:
    """Return the variables that a text names."""
    return set(re.findall(r"FINETUNING_[A-Z_]*[A-Z]", text))


def test_the_page_of_the_docs_has_the_tables_that_the_model_makes():
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page[page.index("| variable |") :] == tables()


def test_every_variable_that_is_named_anywhere_is_declared():
    declared = {variable(name) for name in Settings.model_fields}
    named = {
        word: path.relative_to(ROOT)
        for path in tracked()
        if path.suffix not in (".png", ".parquet", ".gguf")
        for word in words(path.read_text(errors="ignore"))
    }
    assert "FINETUNING_WEBHOOK" in named
    assert {word: path for word, path in named.items() if word not in declared} == {}


def test_every_variable_has_a_reader():
    code = "".join(path.read_text() for path in tracked(*PACKAGES) if path.suffix == ".py")
    tests = "".join(path.read_text() for path in tracked("tests") if path.suffix == ".py")
    read = set(re.findall(r'(?:text_of|Settings\.read)\("(\w+)"\)', code))
    read |= {name for name in names_of(Kind.TESTS) if f'environ.get("{variable(name)}"' in tests}
    assert read == set(names_of())


def test_nothing_but_the_model_reads_them_from_the_environment():
    reads = re.compile(r"""(environ|getenv)\W+(get\W+|setdefault\W+)?["']FINETUNING_""")
    packages = [path for path in tracked(*PACKAGES) if path.suffix == ".py"]
    assert [path for path in packages if reads.search(path.read_text())] == []


def test_an_empty_variable_is_the_default_and_a_set_one_is_read(monkeypatch):
    monkeypatch.setenv("FINETUNING_PROCESSES", "")
    assert Settings.read("processes").processes == 1 and text_of("processes") == "1" and not is_set("processes")
    monkeypatch.setenv("FINETUNING_PROCESSES", "4")
    assert Settings.read("processes").processes == 4 and text_of("processes") == "4" and is_set("processes")


def test_a_wrong_value_stops_only_what_reads_it(monkeypatch):
    monkeypatch.setenv("FINETUNING_PROCESSES", "two")
    assert Settings.read("retry_seconds").retry_seconds == 30
    with pytest.raises(InfrastructureError, match="FINETUNING_PROCESSES: 'two'"):
        Settings.read("processes")


def test_folders_are_separated_by_colons_and_may_be_in_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert Settings.of(recipes="~/mine::ours").recipes == (Path("/home/ann/mine"), Path("ours"))


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("retry_seconds", "soon", "'soon' is not a number of seconds; write 30."),
        ("gpu_hour_price", "2,50", "'2,50' is not a number of units of money; write 2.50."),
        ("hub_deadline", "0", "'0' is not a number of seconds; write 600."),
        ("hub_deadline", "nan", "'nan' is not a number of seconds; write 600."),
        ("artifacts_cache_gb", "-1", "'-1' is not a number of gigabytes; write 50."),
        ("processes", "0", "'0' is not a number of processes; write 1, or the number of GPUs."),
        ("smoke", "yes", "'yes' is neither 1, for a smoke run, nor 0; write one of them."),
        ("require", "gpu", "'gpu' is neither any nor cuda; write one of them."),
        ("executor", "Ray", "'Ray' is neither local nor ray; write one of them."),
        ("launcher", "slurm", "'slurm' is neither local nor ray; write one of them."),
    ],
)
def test_a_wrong_value_is_told_with_what_may_be_written(name, wrong, told):
    with pytest.raises(InfrastructureError) as error:
        Settings.of(**{name: wrong})
    assert str(error.value) == f"{variable(name)}: {told}"


def test_several_wrong_values_are_told_at_once():
    with pytest.raises(InfrastructureError) as error:
        Settings.of(processes="two", smoke="maybe")
    assert len(str(error.value).splitlines()) == 2


def test_every_default_is_a_value_that_may_be_written():
    assert Settings.of(**{name: text_of(name) for name in Settings.model_fields if not is_set(name)}) == Settings()


def test_secrets_and_what_belongs_to_one_machine_are_not_told_to_a_cluster():
    own = {"webhook", "source_token", "judge_key", "ui", "artifacts_cache", "artifacts_cache_gb", *names_of(Kind.TESTS)}
    assert set(names_of()) - set(names_of(Kind.RUN)) == own
    assert set(names_of(Kind.RUN, Kind.FOLDERS)) == {"artifacts", "feedback", "hub_state", "recipes"}


def test_no_password_in_a_hubs_address_is_shown():
    with pytest.raises(ValueError, match="neither local nor") as error:
        hub_address("https://u:pa/ss@hub.example")
    assert "ss@" not in str(error.value) and "u:pa" not in str(error.value)
