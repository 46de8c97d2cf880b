"""The page by keyboard, by its names, on a phone; and feedback that is kept, changed and taken back."""

import dataclasses
import re

import pytest
from playwright.sync_api import Page, expect

from finetuning.feedback.entries import entries
from finetuning.recipe.feedback import FeedbackSpec
from tests.resources.assistant.browser import (
    CHAT,
    NEEDS_A_BROWSER,
    answer,
    ask,
    ended,
    set_fields,
    streamed,
    visit,
)

pytestmark = NEEDS_A_BROWSER

ROLES = re.compile(r'- (?:button|textbox|spinbutton|radio|checkbox|combobox|link)\b(?! "[^"]+")')
# The elements that reach over the right edge of the page (pixels).
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
    .filter(element => !element.closest("pre, table, .unseen"))
    .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
    .map(element => element.outerHTML.slice(0, 100))"""
# What has the focus: its name and whether its outline is seen, or null where nothing has it.
FOCUSED = """() => {
    const element = document.activeElement;
    if (element === document.body) return null;
    const shown = element.type === "radio" ? element.nextElementSibling : element;
    const name = element.id || element.getAttribute("aria-label") || element.textContent;
    return [name, getComputedStyle(shown).outlineStyle !== "none"];
}"""


def test_all_of_it_works_by_keyboard_alone(page):
    set_fields(page, max_tokens="3")
    visit(page, page.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    page.keyboard.type("Two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    ended(page, "Tuned")
    ended(page, "Base")
    expect(page.get_by_role("article").get_by_text("Two\nlines", exact=True)).to_be_visible()
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("radio", name="Both")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Tuned")).to_be_checked()
    page.evaluate("document.activeElement.blur()")
    reached = {}
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(FOCUSED) or ("", True)
        reached[name] = reached.get(name, True) and outlined
    settings = {"system", "temperature", "max_tokens", "seed", "reset"}
    doing = {"question", "send", "retry", "renew", "link", "Copy: Tuned, question 1", "Copy: Base, question 1"}
    assert settings | doing <= set(reached)
    assert all(reached.values())


def test_every_control_and_landmark_has_a_name(page):
    set_fields(page, max_tokens="3")
    ask(page, "Who are you?")
    ended(page, "Tuned")
    tree = page.locator("body").aria_snapshot()
    assert not ROLES.findall(tree), tree
    for role in ("banner", "complementary", "main"):
        expect(page.get_by_role(role)).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize(("width", "text"), [(320, "100%"), (375, "100%"), (640, "200%")])
def test_a_narrow_page_is_not_scrolled_sideways(page, width, text):
    page.set_viewport_size({"width": width, "height": 700})
    page.evaluate("size => { document.documentElement.style.fontSize = size }", text)
    long = f"{'long' * 60}\n\n```\n{'wide ' * 60}\n```\n\n|{' a column |' * 12}\n|{'---|' * 12}\n"
    page.route(CHAT, lambda route: route.fulfill(content_type="text/event-stream", body=streamed(long)))
    page.locator("#settings-fold").evaluate("fold => { fold.open = true }")
    ask(page, "long" * 60)
    tuned, base = (ended(page, side) for side in ("Tuned", "Base"))
    expect(base.locator("table")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not page.evaluate(TOO_WIDE)
    above, below = tuned.bounding_box(), base.bounding_box()
    assert above and below and above["y"] + above["height"] <= below["y"]


def test_feedback_is_asked_for_only_where_it_is_kept(page):
    set_fields(page, max_tokens="3")
    ask(page, "Who are you?")
    expect(ended(page, "Base").get_by_role("button")).to_have_count(1)
    expect(page.get_by_role("button", name="Good")).to_have_count(0)


@pytest.fixture
def judged(page, assistant, monkeypatch, tmp_path):
    """What reads the feedback that is kept; the page has the answers to one question, and asks for feedback on them."""
    source = assistant.assistant.source
    recipe = source.recipe.model_copy(update={"feedback": FeedbackSpec(name="mine")})
    monkeypatch.setattr(assistant.assistant, "source", dataclasses.replace(source, recipe=recipe))
    monkeypatch.setenv("FINETUNING_FEEDBACK", str(tmp_path))
    visit(page)
    expect(page.get_by_text("Feedback (mine): What you say here of an answer is kept")).to_be_visible()
    set_fields(page, max_tokens="3")
    ask(page, "Who are you?")
    expect(page.get_by_role("button", name="Good")).to_have_count(2)
    return lambda: entries(tmp_path / "mine")


def press(page: Page, side: str, name: str, state: str) -> None:
    """Press a button of an answer, and wait until the answer tells of it."""
    answer(page, side).get_by_role("button", name=name).click()
    expect(answer(page, side).locator(".state")).to_contain_text(state)


def test_judgements_are_kept_and_seen_and_can_be_changed_and_taken_back(page, judged):
    press(page, "Tuned", "Good", "Kept: good.")
    press(page, "Tuned", "Bad", "Kept: bad.")
    assert [(entry.rating, entry.of) for entry in judged()] == [("bad", "tiny")]
    press(page, "Tuned", "This one is better", "Kept: bad, better.")
    press(page, "Base", "This one is better", "Kept: better.")
    expect(answer(page, "Tuned").locator(".state")).to_contain_text("Kept: bad.")
    better = page.get_by_role("button", name="This one is better")
    expect(better.first).to_have_attribute("aria-pressed", "false")
    expect(better.last).to_have_attribute("aria-pressed", "true")
    assert [entry.preferred for entry in judged()] == [None, "tiny/base"]
    press(page, "Base", "Take back", "Nothing is kept.")
    press(page, "Tuned", "Bad", "Nothing is kept.")
    assert not judged()


def test_a_correction_is_kept_with_its_conversation_and_one_that_is_refused_can_be_mended(page, judged):
    answer(page, "Base").get_by_role("button", name="Correct it").click()
    field = page.get_by_label("What it should have answered")
    expect(field).to_be_focused()
    field.fill("My key is AKIA" + "Z7QK3M5N8P2R4T6V")
    press(page, "Base", "Keep", "That failed: it seems to hold a secret")
    assert not judged()
    field.fill("I am <b>tiny</b>.")
    press(page, "Base", "Keep", "Kept: your correction “I am <b>tiny</b>.”.")
    expect(field).to_have_count(0)
    [entry] = judged()
    assert (entry.correction, entry.of, entry.version) == (
        "I am <b>tiny</b>.",
        "tiny/base",
        "lora_adapter/tiny/0123456789abcdef",
    )
    assert [message["content"] for message in entry.messages] == ["Solve it.", "Who are you?"]
    assert [said.model for said in entry.answers] == ["tiny", "tiny/base"]
    assert entry.settings == {"temperature": 0, "seed": 0, "max_tokens": 3}
