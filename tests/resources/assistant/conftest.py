"""A tiny assistant that is served for as long as a module's tests run, and a browser with its page."""

import os

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.assistants import served, tiny_source
from tests.resources.assistant.browser import CHROMIUM, SECONDS, USUAL, visit


@pytest.fixture(scope="module")
def assistant(tmp_path_factory):
    """What is served: its `url`, and the `assistant` itself."""
    with served(tiny_source(tmp_path_factory.mktemp("tiny"))) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=flags) as browser:
        yield browser


@pytest.fixture
def page(browser, assistant):
    """The page, opened anew; an error in it fails the test."""
    context = browser.new_context(base_url=assistant.url, viewport=USUAL, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    expect.set_options(timeout=SECONDS * 1000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    visit(page)
    yield page
    context.close()
    assert not errors
