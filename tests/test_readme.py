"""README and docs speak of what is there: files, packages, commands, links."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
TREE = README.split("## What is where")[1].split("```")[1].strip().splitlines()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
CODE = ("assets", "benchmarks", "finetuning", "pipelines", "resources")
PACKAGES = sorted(
    path.removesuffix("/__init__.py")
    for path in TRACKED
    if path.endswith("/__init__.py") and path.startswith(tuple(f"{name}/" for name in CODE))
)


def named_folders() -> set[str]:
    """Every folder that the tree names, relative to the root."""
    found, parent = set(), ""
    for line in TREE:
        names = re.findall(r"([\w.]+)/ ", line)
        if not line.startswith(" "):
            (parent,) = names
        found |= {f"{parent}/{name}" if line.startswith(" ") else name for name in names}
    return found


def code_of(text: str) -> list[str]:
    """The commands in the text's blocks of bash, without comments, and what stands between single backticks."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return lines + re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def anchors_of(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200 and len(TREE) <= 32


def test_the_tree_names_only_what_exists():
    assert not [name for name in named_folders() if not (ROOT / name).is_dir()]


def test_the_tree_names_every_package_and_every_top_level_folder():
    tops = {path.split("/")[0] for path in TRACKED if "/" in path and not path.startswith(".")}
    assert tops | set(PACKAGES) <= named_folders()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_in_one_line_what_each_of_its_files_does(package):
    folder = ROOT / package
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    sentence, _, lines = said.partition("\n\n")
    assert sentence.endswith(".") or sentence.endswith("`.")
    named = [re.fullmatch(r"(\w+) {2,}(\S.*)", line) for line in lines.splitlines()]
    assert all(named), lines
    assert sorted(entry[1] for entry in named if entry) == sorted(modules | packages)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    lost = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            lost.append(link)
    assert not lost


def test_the_docs_table_of_contents_has_every_page():
    contents = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\(([\w-]+\.md)\)", contents))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {match[1] for code in code_of(page.read_text()) if (match := re.match(r"make ([a-z-]+)", code.strip()))}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_runs_exists(page):
    modules = set(re.findall(r"python -m ([a-z_.]+)", page.read_text()))
    ours = {module for module in modules if module.split(".")[0] in CODE}
    places = [ROOT / module.replace(".", "/") for module in ours]
    assert all(path.with_suffix(".py").exists() or (path / "__main__.py").exists() for path in places), ours


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_checkout_that_a_page_names_exists(page):
    folders = "|".join([*CODE, "recipes", "tests", "deploy"])
    named = {name for code in code_of(page.read_text()) for name in re.findall(rf"^(?:{folders})/[\w./-]+$", code)}
    # What each person makes, or mounts, for themselves.
    own = {"deploy/.env", "deploy/recipes", "recipes/NAME.yaml"}
    assert not [name for name in sorted(named - own) if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_job_and_partition_that_a_page_names_exists(page):
    from pipelines.jobs import JOBS

    # Recipes that ship, and those that the page itself shows.
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    recipes |= set(re.findall(r"^# recipes/([\w-]+)\.yaml:", page.read_text(), re.MULTILINE))
    for line in code_of(page.read_text()):
        jobs = set(re.findall(r"--job (\S+)", line))
        partitions = set(re.findall(r"--partition (\S+)", line)) - {"KEY", "NAME", "PARTITION"}
        assert jobs <= {job.name for job in JOBS} and partitions <= recipes, line


def test_every_variable_that_the_code_reads_is_in_the_docs():
    code = "".join((ROOT / path).read_text() for path in TRACKED if path.endswith(".py") and path.startswith(CODE))
    told = "".join(page.read_text() for page in PAGES)
    variables = set(re.findall(r"FINETUNING_[A-Z_]+", code))
    assert variables and variables <= set(re.findall(r"FINETUNING_[A-Z_]+", told))


def test_the_demo_is_a_command_of_the_readme():
    command = "dg launch --job main_line --partition smollm2-135m"
    assert command in README
    assert f"$(BIN)/{command.replace('smollm2-135m', '$(RECIPE)')}" in (ROOT / "Makefile").read_text()
    assert "dagster asset materialize --select '*' --partition smollm2-135m -m pipelines.definitions" in README
