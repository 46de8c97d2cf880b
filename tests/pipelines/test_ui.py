"""The real UI in a real browser: the graph, a run from the launchpad, its report, and a failed gate.

With FINETUNING_SCREENSHOTS=docs/images it also makes the pictures of the docs (`make screenshots`).
"""

import os
import re
import shutil
import socket
import urllib.request
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import FloatRect, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from finetuning.checks.judgement import CHAT_CHECKS, KNOWLEDGE_CHECKS
from tests.assets.exam_store import ExamStore
from tests.pipelines.command import IN_PROCESS, World, shipped_instance
from tests.pipelines.main_line import ASSETS, FAILS
from tests.pipelines.test_definitions import BESIDE, EDGES, OBSERVED
from tests.tiny_models import ZEPHYR, save_tiny_model
from tests.waiting import until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.long("a browser"),
    pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium"),
]

SCREENSHOTS = os.environ.get("FINETUNING_SCREENSHOTS")
PARTITION = "smollm2-135m"
SMOKE = "0" if SCREENSHOTS else "1"  # pictures are of the whole thing
JOB = "locations/pipelines.definitions/jobs/main_line"
IN_ONE_PROCESS = "execution: {config: {in_process: {}}}\n"  # which saves their start, and proves that config is taken
SECONDS = 240  # that a page of a busy machine may take
RUN_SECONDS = 2400 if SCREENSHOTS else 1200
COLUMNS = {"question": "Problem", "answer": "Solution"}
EQUATIONS = {"generator": "linear-equations", "format": "question-answer", "columns": COLUMNS}
USUAL = {"width": 1400, "height": 900}
# The smallest rectangle with all assets and groups in it, and a margin (pixels).
AROUND_THE_GRAPH = """() => {
    const boxes = [...document.querySelectorAll("svg foreignObject")].map(box => box.getBoundingClientRect());
    const [left, top] = ["left", "top"].map(side => Math.min(...boxes.map(box => box[side])) - 16);
    const [right, bottom] = ["right", "bottom"].map(side => Math.max(...boxes.map(box => box[side])) + 16);
    return {x: left, y: top, width: right - left, height: bottom - top};
}"""


def unproved(base_model: Path) -> dict:
    """A recipe whose gate no model can pass that two steps were spent on."""
    return {
        "summary": "A tiny model that learns nothing much",
        "base_model": {"repo": str(base_model)},
        "dataset": {"sources": [EQUATIONS | {"rows": 32}], "eval": {"fraction": 0.25}},
        "lora": {"r": 4},
        "training": {"max_steps": 2, "per_device_train_batch_size": 2},
        "evaluation": {"metrics": ["exact-match"], "rows": 6, "max_new_tokens": 64, "gate": FAILS},
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("ui")
    world = World(root, {"FINETUNING_SMOKE": SMOKE}, shipped_instance(root))
    for name in ("one", "two"):
        rows = {"sources": [EQUATIONS | {"rows": 8}]}
        hub = {"repo": name, "license": "mit"}
        world.write_recipe(name, {"summary": name, "base_model": {"repo": "a/b"}, "dataset": rows, "hub": hub})
    world.write_recipe("unproved", unproved(save_tiny_model("smollm2-135m", root / "tiny-llama", ZEPHYR)))
    return world


@pytest.fixture(scope="module")
def ui(world):
    """The address of the UI, which is served for as long as these tests run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = ("-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port))
    with world.running(*served) as log:
        wait_for(f"http://127.0.0.1:{port}/server_info", log)
        yield f"http://127.0.0.1:{port}"


def wait_for(address: str, log: Path) -> None:
    def answers():
        try:
            with urllib.request.urlopen(address):
                return True
        except OSError:
            return False

    until(answers, log.read_text)


@pytest.fixture(scope="module")
def page(ui):
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=flags) as browser:
        page = browser.new_page(base_url=ui, viewport=USUAL)
        page.set_default_timeout(SECONDS * 1000)
        expect.set_options(timeout=SECONDS * 1000)
        yield page


@pytest.fixture(scope="module")
def screenshot(page, tmp_path_factory):
    """What writes a picture of the page, of 1600 pixels at most, where FINETUNING_SCREENSHOTS asks for it."""
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path_factory.mktemp("screenshots")

    def write(name: str, clip: FloatRect | None = None) -> Path:
        picture = Image.open(BytesIO(page.screenshot(animations="disabled", clip=clip))).convert("RGB")
        picture.thumbnail((1600, 1600), Image.Resampling.LANCZOS)
        picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        picture.save(folder / f"{name}.png", optimize=True)
        return folder / f"{name}.png"

    return write


@pytest.fixture(scope="module")
def succeeded(page):
    """The address of a run of the default recipe that was started from the launchpad, and ended well."""
    page.goto(JOB)
    page.get_by_role("button", name="Materialize all").locator("xpath=following::button[1]").click()
    page.get_by_role("menuitem", name="Open launchpad").click()
    choose_partition(page)
    expect(page.get_by_text(f"partition: {PARTITION}")).to_be_visible()
    page.locator(".CodeMirror").last.click()
    page.keyboard.press("Control+Home")
    page.keyboard.insert_text(IN_ONE_PROCESS)
    expect(page.get_by_text("No errors", exact=True)).to_be_visible()
    page.get_by_role("button").filter(has_text=re.compile("^Materialize$")).click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=RUN_SECONDS * 1000)
    return page.url


def choose_partition(page):
    """Choose the recipe, from a menu that closes where the page is drawn anew while it loads."""

    def chosen():
        page.get_by_placeholder("Partition").click()
        try:
            page.get_by_role("menuitem", name=PARTITION, exact=True).click(timeout=10_000)
        except PlaywrightTimeoutError:
            page.keyboard.press("Escape")
            return False
        return True

    until(chosen)


def test_a_run_from_the_launchpad_succeeds(page, succeeded, world, screenshot):
    page.goto(succeeded)
    expect(page.get_by_text("Success", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Terminate")).to_be_hidden()
    made = world.root.glob(f"artifacts/{'' if SCREENSHOTS else 'smoke/'}*/{PARTITION}/current.json")
    assert {current.parts[-3] for current in made} == ASSETS
    expect(page.get_by_text("RUN_SUCCESS")).to_be_visible()
    page.get_by_role("button", name="Re-execute all").locator("xpath=preceding::button[1]").click()
    screenshot("run")


def test_the_graph_shows_sources_and_assets_in_their_groups(page, succeeded, screenshot):
    page.set_viewport_size({"width": 2300, "height": 2900})  # at which each asset shows what it is
    page.goto("asset-groups")
    for group in ("sources", "data", "knowledge", "model", "proof", "publication"):
        expect(page.get_by_text(group, exact=True).last).to_be_visible()
    page.get_by_role("button", name="Hide navigation").click()
    page.keyboard.press("Alt+e")
    page.get_by_role("button", name="settings").last.click()
    page.get_by_role("menuitem", name="Change graph to vertical orientation").click()
    page.get_by_label("panel_show_right").first.click()
    page.goto(page.url)  # which fits the graph into the page
    for name in (*EDGES, *OBSERVED, *BESIDE):
        expect(page.get_by_text(name, exact=True).last).to_be_visible()
    checks = len(CHAT_CHECKS) + len(KNOWLEDGE_CHECKS)
    expect(page.get_by_text(f"{checks} / {checks} Passed")).to_be_visible()
    expect(page.get_by_text("Parquet").first).to_be_visible()
    screenshot("graph", page.evaluate(AROUND_THE_GRAPH))
    page.set_viewport_size(USUAL)


def test_an_asset_explains_itself(page, succeeded):
    page.goto("assets/chat_dataset?view=overview")
    for text in ("hub: read", "Row count", "supervised_tokens", "the turns of the conversation", "list<struct>"):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.get_by_role("link", name="chat_dataset.py")).to_be_visible()
    page.goto("assets/published_repo?view=overview")
    repo = f"/local/smollm2-135m-linear-equations{'' if SCREENSHOTS else '-smoke'}"
    expect(page.get_by_role("link", name=repo, exact=False).first).to_be_visible()


def test_the_evaluation_report_shows_its_plot(page, succeeded, screenshot):
    page.goto("assets/evaluation_report?view=overview")
    expect(page.get_by_text(PARTITION).first).to_be_visible()
    page.get_by_text("Show Markdown").first.click()
    plot = page.get_by_role("img", name="Base beside tuned")
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 300
    page.get_by_role("heading", name=f"{PARTITION}: base beside tuned").scroll_into_view_if_needed()
    screenshot("report")


def test_figures_are_plotted_over_time(page, succeeded, world, screenshot):
    again = world.materialize(PARTITION, select="evaluation_report", FINETUNING_SMOKE=SMOKE)  # reused: one more point
    assert again.returncode == 0, again.stdout[-4000:]
    page.goto("assets/evaluation_report?view=overview")
    page.get_by_role("button", name="Plots").click()
    page.get_by_role("button", name="Events").click()
    for figure in ("rows", "tokens_per_second", "tuned/final-answer"):
        expect(page.get_by_text(figure, exact=True).first).to_be_visible()
    assert page.locator("canvas").count() > 3
    page.get_by_text("Metadata", exact=True).first.scroll_into_view_if_needed()
    screenshot("plots")


def test_the_leaderboard_is_a_page_with_its_plot(page, world):
    store = ExamStore(world.root / "artifacts")
    for name, right in (("one", 18), ("two", 2)):
        store.exam(name, [1.0] * right + [0.0] * (20 - right), r=right)
    command = ("-m", "dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "leaderboard")
    done = world.warm(*command, "--config-json", IN_PROCESS, FINETUNING_SMOKE="0")
    assert done.returncode == 0, done.stdout[-4000:]
    page.goto("assets/leaderboard?view=overview")
    page.get_by_text("Show Markdown").first.click()
    expect(page.get_by_text("one is better than two, beyond noise.").first).to_be_visible()
    plot = page.get_by_role("img").last
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 300


def test_partitions_that_are_chosen_in_the_dialog_are_filled_by_a_backfill(page, world):
    page.goto("assets/raw_dataset?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Select a partition or create one").click()
    for name in ("one", "two"):
        page.keyboard.press("Control+A")
        page.keyboard.type(name)
        page.locator(f'[role=menuitem] [data-tooltip="{name}"]').click()
    page.keyboard.press("Escape")
    expect(dialog.get_by_text("2 partitions", exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Launch backfill").click()
    folder = world.root / "artifacts" / ("" if SCREENSHOTS else "smoke") / "raw_dataset"
    until(lambda: all((folder / name / "current.json").exists() for name in ("one", "two")))
    page.goto("runs?view=backfills")
    expect(page.get_by_text("2 partitions").first).to_be_visible()


def test_a_failed_gate_is_seen_as_failed(page, succeeded, world):
    run = world.materialize("unproved", FINETUNING_SMOKE="0")
    assert run.returncode == 1
    page.goto("runs")
    page.get_by_role("link", name=re.search(r"[0-9a-f]{8}(?=-[0-9a-f]{4}-)", run.stdout)[0]).click()
    expect(page.get_by_text("Failure", exact=True)).to_be_visible()
    page.goto("assets/evaluation_report?view=checks&checkDetail=verdict")
    expect(page.get_by_text("unproved")).to_be_visible()
    expect(page.get_by_text("Failed", exact=True).last).to_be_visible()
    expect(page.get_by_text(re.compile(r"gain in exact-match is .* misses by \d\.\d{3} the 1\.000"))).to_be_visible()
    assert "published_repo" not in world.artifacts("unproved")
