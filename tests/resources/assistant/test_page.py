"""The assistant's page in a real browser, before the real server and a tiny model."""

import re

import pytest
from playwright.sync_api import Route, expect

from finetuning.assistant import batches
from tests.resources.assistant.browser import (
    CHAT,
    NEEDS_A_BROWSER,
    answer,
    ask,
    chats,
    ended,
    set_fields,
    slowly,
    streamed,
    visit,
)
from tests.waiting import until

pytestmark = NEEDS_A_BROWSER

# What would be seen if anything in it ran or were fetched.
HOSTILE = """<script>window.ran = 1</script><img src=x onerror="window.ran = 2"><svg onload="window.ran = 3"></svg>

[a link](javascript:window.ran=4) and ![a picture](http://127.0.0.1:9/seen.png)

<iframe srcdoc="<script>parent.ran = 5</script>"></iframe><style>main { display: none }</style>

<a href="javascript:window.ran=6" onclick="window.ran = 7">press</a> **whole**"""


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
    with slowly(assistant, seconds=0.25):  # or a busy machine's browser sees nothing before the end
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
