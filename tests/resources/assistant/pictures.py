"""Makes the pictures of the assistant in the docs: `python -m tests.resources.assistant.pictures`, after both demos.

Each is of a recipe as it is on this machine, served by the public command and asked in a browser.
"""

import os
import re
import subprocess
import sys
import urllib.request
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from resources.loopback import listening
from tests.resources.assistant.browser import CHROMIUM, SECONDS, ended
from tests.waiting import until

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
OF = {"assistant": "smollm2-135m", "passages": "smollm2-135m-manuals"}
SIZE = {"width": 1200, "height": 760}


def main() -> None:
    """Write docs/images/assistant.png and docs/images/passages.png."""
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=flags) as browser:
        for name, recipe in OF.items():
            page = browser.new_page(viewport=SIZE, reduced_motion="reduce", color_scheme="light")
            take(page, recipe, IMAGES / f"{name}.png")


def take(page, recipe: str, path: Path) -> None:
    """Ask the recipe's assistant the first question that its page suggests, and write the picture of both answers."""
    probe = listening(0)
    assert probe
    with probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "resources.assistant", "serve", recipe, "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        until(lambda: is_up(address), lambda: f"{recipe} is not served")
        page.goto(address)
        page.locator("#examples button").first.click()
        page.keyboard.press("Enter")
        ended(page, "Base")
        cited = ended(page, "Tuned").get_by_role("button", name=re.compile("Open passage"))
        if cited.count():
            cited.first.click()
        picture = Image.open(BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        picture.save(path, optimize=True)
        print(path)
    finally:
        server.terminate()
        server.wait()


def is_up(address: str) -> bool:
    """Whether the page is served."""
    try:
        with urllib.request.urlopen(address):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
