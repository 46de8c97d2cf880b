"""What Dagster and Ray keep to themselves is imported in one module each, and costs the code location no time."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("dagster", "dagster_graphql", "dagster_pipes", "dagster_postgres", "dagster_ray", "dagster_shared", "ray")
OURS = ("resources/dagster_internals.py", "resources/ray_internals.py")


def names_imported(source: str) -> set[str]:
    """Return the full names that the source imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            try:
                found |= names_imported(node.value)  # a script that a test runs
            except SyntaxError:
                continue
    return found


def private(source: str) -> set[str]:
    """Return those of the names that a library of ours keeps to itself."""
    parts = [name.split(".") for name in names_imported(source)]
    return {".".join(name) for name in parts if name[0] in LIBRARIES and any(part.startswith("_") for part in name)}


def test_private_names_are_told_from_public_ones():
    lines = [
        "import {} as dg, ray.train",
        "def late():",
        "    from {}._core.events import DagsterEvent",
        "    import {}._serdes",
    ]
    source = "\n".join(lines).replace("{}", "dagster")
    assert private(f"{source}\nSCRIPT = {source!r}") == {"dagster._core.events.Event", "dagster._serdes"}


def sources() -> dict[str, str]:
    """Return all Python files but the two, by their paths."""
    names = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {
        name: (ROOT / name).read_text() for name in names.splitlines() if (ROOT / name).exists() and name not in OURS
    }


def test_no_other_module_imports_a_private_name_of_dagster_or_ray():
    found = {path: private(source) for path, source in sources().items()}
    assert len(found) > 300
    assert {path: names for path, names in found.items() if names} == {}


def test_every_private_name_is_needed_by_somebody():
    used = set().union(*(names_imported(source) for source in sources().values()))
    for path in OURS:
        module = path.removesuffix(".py").replace("/", ".")
        top = ast.parse((ROOT / path).read_text()).body
        offered = {node.name for node in top if isinstance(node, ast.FunctionDef)}
        for node in top:
            if isinstance(node, ast.ImportFrom) and private(ast.unparse(node)):
                offered |= {alias.name for alias in node.names}
        assert offered and {name for name in offered if f"{module}.{name}" not in used} == set()


def test_the_code_location_loads_neither_ray_nor_what_only_tests_and_commands_need():
    slow = ("ray", "dagster_ray", "dagster._core.test_utils", "dagster._cli.utils")
    script = f"import sys, pipelines.definitions; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
