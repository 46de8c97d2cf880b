"""Drives the assistant's page in a real browser."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Locator, Page, Request, expect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NEEDS_A_BROWSER = [
    pytest.mark.long("a browser"),
    pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium"),
]

SECONDS = 120  # that an answer may take on a busy machine
USUAL = {"width": 1280, "height": 800}
CHAT = "**/v1/chat/completions"


def visit(page: Page, address: str = "/") -> None:
    """Open an address in a new document, and wait until questions can be asked."""
    page.goto("about:blank")
    page.goto(address)
    expect(page.get_by_label("Question", exact=True)).to_be_visible()


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question", exact=True).fill(question)
    page.keyboard.press("Enter")


def answer(page: Page, side: str, number: int = 1) -> Locator:
    return page.get_by_role("region", name=f"{side}, question {number}", exact=True)


def ended(page: Page, side: str, number: int = 1) -> Locator:
    """The answer, once it has ended and its text has been formatted."""
    found = answer(page, side, number)
    expect(found).to_have_attribute("aria-busy", "false")
    return found


def chats(page: Page) -> list[dict]:
    """The requests for answers that the page will send from now on."""
    sent: list[dict] = []

    def note(request: Request) -> None:
        if request.url.endswith("/v1/chat/completions"):
            sent.append(request.post_data_json or {})

    page.on("request", note)
    return sent


def streamed(text: str) -> str:
    """An answer as the server streams it."""
    events = [{"choices": [{"delta": {"content": text}}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    return "".join(f"data: {data}\n\n" for data in [*map(json.dumps, events), "[DONE]"])


@contextmanager
def slowly(assistant, seconds: float = 0.05) -> Iterator[None]:
    """Let the model take that long for each token, so that there is time to stop it."""
    hook = assistant.assistant.model.register_forward_pre_hook(lambda *given: time.sleep(seconds))
    try:
        yield
    finally:
        hook.remove()


def set_fields(page: Page, **settings: str) -> None:
    for name, value in settings.items():
        page.locator(f"#{name}").fill(value)
