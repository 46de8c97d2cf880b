"""The assistant's page in a real browser, before the real server and a tiny model."""

import dataclasses
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect, sync_playwright

from finetuning.assistant import batches
from finetuning.feedback.entries import entries
from finetuning.recipe.feedback import FeedbackSpec
from tests.waiting import until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.long("a browser"),
    pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium"),
]

SECONDS = 120  # that an answer may take on a busy machine
USUAL = {"width": 1280, "height": 800}
CHAT = "**/v1/chat/completions"
# What would be seen if anything in it ran or were fetched.
HOSTILE = """<script>window.ran = 1</script><img src=x onerror="window.ran = 2"><svg onload="window.ran = 3"></svg>

[a link](javascript:window.ran=4) and ![a picture](http://127.0.0.1:9/seen.png)

<iframe srcdoc="<script>parent.ran = 5</script>"></iframe><style>main { display: none }</style>

<a href="javascript:window.ran=6" onclick="window.ran = 7">press</a> **whole**"""
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


def test_both_sides_answer_beside_each_other_and_say_how_fast(page):
    sent = chats(page)
    set_fields(page, max_tokens="24")
    ask(page, "What is 2 + 2?")
    tuned, base = (ended(page, side) for side in ("Tuned", "Base"))
    for side in (tuned, base):
        expect(side).to_contain_text(re.compile(r"\d+ tokens?( · [\d.]+ tokens/s)? · first token after [\d.]+ s"))
    left, right = tuned.bounding_box(), base.bounding_box()
    assert left and right and left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    assert [request["stream"] for request in sent] == [True, True]
    assert len({request["model"] for request in sent}) == 2
    expect(page.locator("#announcer")).to_contain_text("Tuned has ended.")


def test_each_side_reads_its_own_earlier_answer(page):
    set_fields(page, max_tokens="16")
    ask(page, "What is 2 + 2?")
    said = {}
    for side in ("Tuned", "Base"):
        ended(page, side).get_by_role("button", name="Copy").click()
        expect(page.locator("#announcer")).to_contain_text("Copied.")
        said[side] = page.evaluate("navigator.clipboard.readText()")
        page.locator("#announcer").evaluate("announcer => announcer.replaceChildren()")
    sent = chats(page)
    ask(page, "And 3 + 3?")
    for side in said:
        ended(page, side, 2)
    read = {request["messages"][-2]["content"] for request in sent}
    assert read == set(said.values())
    assert all(request["messages"][-3]["content"] == "What is 2 + 2?" for request in sent)


def test_an_answer_that_was_cut_says_where(page):
    set_fields(page, max_tokens="3")
    ask(page, "Count to one hundred.")
    expect(ended(page, "Tuned")).to_contain_text("Cut: ended at 3 tokens.")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_answers_stop_when_they_are_told_to_and_free_their_places(page, assistant, how):
    set_fields(page, max_tokens=page.locator("#max_tokens").get_attribute("max"))
    with slowly(assistant):
        ask(page, "Count to one hundred.")
        for side in ("Tuned", "Base"):
            expect(answer(page, side)).to_contain_text("Writing…")
        if how == "button":
            page.get_by_role("button", name="Stop", exact=True).click()
        else:
            page.keyboard.press("Escape")
        for side in ("Tuned", "Base"):
            expect(ended(page, side)).to_contain_text("Stopped by you.")
        until(lambda: assistant.assistant.engine.at_work() == 0, seconds=20)


def test_a_retry_takes_the_place_of_the_last_turn(page):
    set_fields(page, max_tokens="4")
    ask(page, "Count to one hundred.")
    expect(ended(page, "Tuned")).to_contain_text("ended at 4 tokens")
    ended(page, "Base")
    sent = chats(page)
    set_fields(page, max_tokens="3")
    page.get_by_role("button", name="Retry").click()
    expect(answer(page, "Tuned")).to_contain_text("ended at 3 tokens")
    ended(page, "Base")
    expect(page.get_by_role("article")).to_have_count(1)
    assert all([message["role"] for message in request["messages"]] == ["system", "user"] for request in sent)


def test_a_new_conversation_ends_the_old_one_at_once(page, assistant):
    set_fields(page, max_tokens=page.locator("#max_tokens").get_attribute("max"))
    with slowly(assistant):
        ask(page, "Count to one hundred.")
        expect(answer(page, "Tuned")).to_contain_text("Writing…")
        page.get_by_role("button", name="New conversation").click()
        expect(page.get_by_role("article")).to_have_count(0)
        until(lambda: assistant.assistant.engine.at_work() == 0, seconds=20)
    set_fields(page, max_tokens="3")
    ask(page, "Count to ten.")
    expect(ended(page, "Tuned")).to_contain_text("ended at 3 tokens")
    ended(page, "Base")


def test_a_link_brings_the_settings_and_the_questions_and_sends_nothing(page):
    given = {"system": "Be brief.\nAnd & kind = 100 %.", "temperature": "0.7", "max_tokens": "5", "seed": "42"}
    expect(page.get_by_text("Answers are greedy, as in the exam.")).to_be_visible()
    set_fields(page, **given)
    page.get_by_role("radio", name="Tuned").check()
    expect(page.get_by_text(re.compile("Answers are sampled: not examined"))).to_be_visible()
    questions = ["What is 2 + 2?", "Why?\nIn two lines, with ä & #."]
    for number, question in enumerate(questions, 1):
        ask(page, question)
        ended(page, "Tuned", number)
    expect(page.get_by_role("region", name=re.compile("^Base"))).to_have_count(0)
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("The link is copied.")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(page.url)

    sent = chats(page)
    visit(page, link)
    assert {name: page.locator(f"#{name}").input_value() for name in given} == given
    expect(page.get_by_role("radio", name="Tuned")).to_be_checked()
    box = page.get_by_label("Question", exact=True)
    expect(box).to_have_value(questions[0])
    expect(page.get_by_text("1 more question of the link")).to_be_visible()
    assert not sent and page.get_by_role("article").count() == 0
    box.press("Enter")
    expect(box).to_have_value(questions[1])
    ended(page, "Tuned")
    assert [(request["messages"][0]["content"], request["temperature"], request["seed"]) for request in sent] == [
        (given["system"], 0.7, 42)
    ]


def test_nothing_in_an_address_goes_beyond_its_bounds_or_runs(page):
    usual = {name: page.locator(f"#{name}").input_value() for name in ("temperature", "max_tokens", "seed")}
    sent = chats(page)
    script = "<img src=x onerror=window.ran=1>"
    wrong = {"temperature": "99", "max_tokens": "1e9", "seed": "-1", "ask": script, "question": script}
    visit(page, "/#" + "&".join(f"{name}={value}" for name, value in wrong.items()))
    assert {name: page.locator(f"#{name}").input_value() for name in usual} == usual
    expect(page.get_by_label("Question", exact=True)).to_have_value(script)
    told = page.get_by_text("Not taken from the address:")
    for what in ("temperature is not a number from 0 to 2", "max_tokens is not", "seed is not", "who is asked"):
        expect(told).to_contain_text(what)
    assert not sent
    set_fields(page, max_tokens="3")
    page.get_by_label("Question", exact=True).press("Enter")
    ended(page, "Tuned")
    expect(page.get_by_role("article").get_by_text(script, exact=True)).to_be_visible()
    assert page.evaluate("window.ran") is None


def test_nothing_in_an_answer_runs_or_is_fetched(page, assistant):
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.route(CHAT, lambda route: route.fulfill(content_type="text/event-stream", body=streamed(HOSTILE)))
    ask(page, "Attack me.")
    body = ended(page, "Tuned").locator(".body")
    expect(body.locator("strong")).to_have_text("whole")
    assert body.locator("script, iframe, style, svg, [onclick], [onerror], [style]").count() == 0
    assert body.locator("a[href^='javascript' i]").count() == 0
    for link in body.get_by_role("link").all():
        link.click(modifiers=["Control"])
    expect(page.get_by_role("main")).to_be_visible()
    assert page.evaluate("window.ran") is None
    assert all(address.startswith(assistant.url) for address in fetched)


def test_text_stays_plain_where_the_server_does_not_format_it(page):
    page.route("**/markdown", lambda route: route.abort())
    page.route(CHAT, lambda route: route.fulfill(content_type="text/event-stream", body=streamed(HOSTILE)))
    ask(page, "Attack me.")
    expect(ended(page, "Tuned").locator(".body")).to_have_text(HOSTILE)
    assert page.evaluate("window.ran") is None


def test_an_unknown_model_is_told_on_its_side_alone(page):
    def without_base(route: Route) -> None:
        about = route.fetch()
        route.fulfill(response=about, json=about.json() | {"base": "nobody"})

    page.route("**/assistant", without_base)
    visit(page)
    set_fields(page, max_tokens="3")
    ask(page, "Who are you?")
    expect(ended(page, "Base")).to_contain_text("nobody")
    expect(answer(page, "Base").locator(".error")).to_be_visible()
    expect(ended(page, "Tuned")).to_contain_text("3 tokens")
    expect(answer(page, "Tuned").locator(".error")).to_have_count(0)


def test_a_busy_server_is_told_in_its_own_words_and_can_be_asked_again(page, monkeypatch):
    monkeypatch.setattr(batches, "MOST_WAITING", 0)
    set_fields(page, max_tokens="3")
    ask(page, "Who are you?")
    said = "0 questions wait for an answer already: ask again in a moment"
    for side in ("Tuned", "Base"):
        expect(ended(page, side).locator(".error")).to_have_text(said)
    expect(page.locator("#announcer")).to_contain_text(f"Base has ended. {said}")
    monkeypatch.undo()
    page.get_by_role("button", name="Retry").click()
    expect(ended(page, "Tuned")).to_contain_text("3 tokens")


def test_an_answer_that_breaks_off_says_so_and_keeps_what_came(page):
    whole = streamed("The beginning")
    body = whole[: whole.index("\n\n") + 2] + 'data: {"error": {"message": "out of memory"}}\n\n'
    page.route(CHAT, lambda route: route.fulfill(content_type="text/event-stream", body=body))
    ask(page, "Who are you?")
    expect(ended(page, "Tuned").locator(".error")).to_have_text("out of memory")
    expect(answer(page, "Tuned").locator(".body")).to_contain_text("The beginning")


def test_a_server_that_has_gone_is_told(page):
    page.route(CHAT, lambda route: route.abort())
    ask(page, "Who are you?")
    expect(ended(page, "Tuned").locator(".error")).to_contain_text("cannot be reached")


def test_a_setting_that_cannot_be_taken_sends_nothing(page):
    sent = chats(page)
    set_fields(page, temperature="3")
    ask(page, "Who are you?")
    expect(page.locator("#temperature")).to_be_focused()
    expect(page.get_by_label("Question", exact=True)).to_have_value("Who are you?")
    assert not sent
    page.get_by_role("button", name="Reset settings").click()
    expect(page.locator("#temperature")).to_have_value("0")


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
