"""The assistant over HTTP, asked by OpenAI's own client, and by those who mean no good."""

import asyncio
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from starlette.requests import ClientDisconnect

from finetuning.assistant.conversations import BadRequest
from finetuning.chat.segments import Conversation
from finetuning.evaluation.generation import Question, generate
from finetuning.lora.loading import load_side
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from resources.assistant.answers import Answering, Streamed, Waiting
from resources.assistant.requests import request_of
from tests.assistants import KWARGS
from tests.waiting import until

QUESTIONS = [f"Solve for x: {number}x = {2 * number}." for number in range(1, 9)]
SIDES = ("tiny", "tiny/base")


@pytest.fixture(scope="module")
def client(assistant):
    return openai.OpenAI(base_url=f"{assistant.url}/v1", api_key="any", max_retries=0)


@pytest.fixture(scope="module")
def examined(assistant):
    """What the exam reads of both sides, loaded anew as it loads them."""
    source, renderer = assistant.assistant.source, assistant.assistant.renderer
    asked = [[{"role": "user", "content": text}] for text in QUESTIONS]
    questions = [Question(str(i), said, renderer.prompt(Conversation(said)), "") for i, said in enumerate(asked)]
    found = {}
    for name, adapter in zip(SIDES, (source.adapter, None), strict=True):
        tokenizer = renderer.tokenizer
        model = load_side(tokenizer, questions[0].prompt_ids, source.base_model, adapter, KWARGS)
        spec = EvaluationSpec(max_new_tokens=24, batch_size=5)
        found[name] = generate(model, tokenizer, questions, spec, Progress(lambda line: None, ""), name)
    return found


def ask(client, model, text, **settings):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **settings)


def said(answer):
    return answer.choices[0].message.content


def test_both_sides_answer_as_in_the_exam_whether_alone_or_all_at_once(client, examined):
    assert [answer.text for answer in examined["tiny"]] != [answer.text for answer in examined["tiny/base"]]
    pairs = [(name, i) for name in SIDES for i in range(len(QUESTIONS))]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda pair: ask(client, pair[0], QUESTIONS[pair[1]]), pairs))
    for (name, i), answer in zip(pairs, answers, strict=True):
        expected = examined[name][i]
        assert said(answer) == expected.text
        assert answer.usage.completion_tokens == expected.tokens
        assert answer.choices[0].finish_reason == ("stop" if expected.stopped else "length")
    assert said(ask(client, "tiny", QUESTIONS[0])) == examined["tiny"][0].text


@pytest.mark.parametrize("name", SIDES)
def test_a_stream_comes_piece_by_piece_and_is_the_same(client, examined, name):
    stream = ask(client, name, QUESTIONS[1], stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    told = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    expected = examined[name][1]
    assert "".join(told) == expected.text and len(told) > 3
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].usage.completion_tokens == expected.tokens
    assert chunks[-2].choices[0].finish_reason == ("stop" if expected.stopped else "length")


def test_the_client_lists_both(client):
    assert [model.id for model in client.models.list()] == list(SIDES)
    assert client.models.retrieve("tiny/base").id == "tiny/base"
    with pytest.raises(openai.NotFoundError, match="there is no 'nobody'; there are tiny, tiny/base"):
        client.models.retrieve("nobody")


def test_fewer_tokens_a_seed_and_stop_strings_do_what_they_say(client):
    short = ask(client, "tiny", QUESTIONS[2], max_tokens=3)
    assert short.usage.completion_tokens == 3 and short.choices[0].finish_reason == "length"
    whole = said(ask(client, "tiny", QUESTIONS[2]))
    stop = whole[5:7]
    assert said(ask(client, "tiny", QUESTIONS[2], stop=[stop])) == whole[: whole.index(stop)]
    drawn = [said(ask(client, "tiny", QUESTIONS[2], temperature=1.9, seed=seed)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_conversation_that_is_too_long_loses_its_oldest_turns_and_says_so(client):
    turns = [{"role": role, "content": "x " * 60} for _ in range(9) for role in ("user", "assistant")]
    last = {"role": "user", "content": "and now?"}
    answer = client.chat.completions.create(model="tiny", messages=[*turns, last], max_tokens=3)
    left_out = answer.model_extra["left_out_turns"]
    assert 0 < left_out < 9
    shorter = client.chat.completions.create(model="tiny", messages=[*turns[2 * left_out :], last], max_tokens=3)
    assert shorter.usage.prompt_tokens == answer.usage.prompt_tokens
    assert "left_out_turns" not in shorter.model_extra


MISTAKES = {
    "n": ({"n": 2}, "n: 2 is not done here"),
    "logprobs": ({"logprobs": True}, "logprobs: True is not done here"),
    "format": ({"response_format": {"type": "json_object"}}, "response_format"),
    "temperature": ({"temperature": 3}, "temperature: .* less than or equal to 2"),
    "not a number": ({"temperature": "hot"}, "temperature"),
    "tokens": ({"max_tokens": 10**6}, "max_tokens: 1,000,000, and the model reads and writes 512"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "seed": ({"seed": 2**70}, "seed"),
    "stop": ({"stop": ["a"] * 5}, "stop: .*at most 4"),
    "unknown": ({"extra_body": {"nonsense": 1}}, "nonsense"),
    "picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages.0.content",
    ),
    "nobody asks": ({"messages": [{"role": "assistant", "content": "x"}]}, "an answer follows a message of user"),
    "no messages": ({"messages": []}, "messages"),
    "role": ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
    "arguments": (
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "no"}}]},
                {"role": "tool", "content": "5"},
            ]
        },
        "arguments of a call of f are no JSON object",
    ),
    "too long": ({"messages": [{"role": "user", "content": "x " * 2000}]}, "come to .* tokens, and there is room"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_answered_is_refused_with_the_reason(client, name):
    settings, why = MISTAKES[name]
    given = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], **settings}
    with pytest.raises(openai.BadRequestError, match=why):
        client.chat.completions.create(**given)


def test_what_changes_nothing_is_taken(client):
    answer = ask(client, "tiny", "x", n=1, frequency_penalty=0, user="somebody", tool_choice="none", max_tokens=1)
    assert answer.usage.completion_tokens == 1


def request(assistant, path, body=None, method=None, **headers):
    asked = urllib.request.Request(assistant.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


BODIES = {
    "no JSON": b"{",
    "no object": b"[1]",
    "text": b'"x"',
    "deep": b"[" * 100_000,
    "deep object": b'{"messages": ' + b'{"a":' * 50_000 + b"}",
    "nothing": b"",
    "no UTF-8": b'{"model": "\xff"}',
    "surrogate": b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 1}',
    "NaN": b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    "large": b" " * (2**20 + 1),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/markdown"])
def test_a_body_that_is_none_is_refused(assistant, path, name):
    status, body, _ = request(assistant, path, BODIES[name], **{"Content-Type": "application/json"})
    assert status == 400 and json.loads(body)["error"]["message"]


def nested(depth):
    return '{"a": ' * depth + "1" + "}" * depth


@pytest.mark.parametrize("depth", [50, 300, 700, 900, 960, 980, 990, 100_000])
@pytest.mark.parametrize("place", ["text", "object", "tools"])
def test_what_is_nested_deeply_is_no_fault_of_the_server(assistant, depth, place):
    text = nested(depth)
    arguments = {"text": json.dumps(text), "object": text}.get(place, "{}")
    call = f'{{"id": "1", "function": {{"name": "f", "arguments": {arguments}}}}}'
    messages = f'[{{"role": "user", "content": "x"}}, {{"role": "assistant", "tool_calls": [{call}]}}, '
    tools = f', "tools": [{text}]' if place == "tools" else ""
    body = f'{{"model": "tiny", "messages": {messages}{{"role": "tool", "content": "5"}}], "max_tokens": 1{tools}}}'
    status, told, _ = request(assistant, "/v1/chat/completions", body.encode(), **{"Content-Type": "application/json"})
    assert status == 400 and json.loads(told)["error"]["message"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 900 + "]" * 900])
def test_arguments_that_are_nested_too_deeply_are_none(text):
    calls = [{"id": "1", "function": {"name": "f", "arguments": text}}]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": calls}]
    with pytest.raises(BadRequest, match="arguments of a call of f are no JSON object"):
        _ = request_of(json.dumps({"model": "tiny", "messages": messages}).encode()).conversation


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-9, 1e-6])
def test_next_to_no_temperature_is_greedy(client, temperature):
    found = ask(client, "tiny", QUESTIONS[3], temperature=temperature, seed=1, top_p=0.9)
    assert said(found) == said(ask(client, "tiny", QUESTIONS[3]))


STRANGERS = {
    "another host": {"Host": "evil.example"},
    "another host with our port": {"Host": "127.0.0.1.evil.example:80"},
    "no host": {"Host": ""},
    "a page of another origin": {"Origin": "http://evil.example"},
    "a page without an origin": {"Origin": "null"},
    "another port": {"Origin": "http://127.0.0.1:1"},
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("path", ["/", "/assistant", "/v1/models", "/nix"])
def test_pages_and_hosts_from_elsewhere_get_nothing(assistant, path, name):
    status, body, _ = request(assistant, path, **STRANGERS[name])
    assert status == 403 and json.loads(body)["error"]["code"] == "forbidden"


def test_the_page_and_its_parts_come_with_a_policy(assistant):
    status, body, headers = request(assistant, "/")
    assert status == 200 and b"<html" in body
    assert "default-src 'none'" in headers["content-security-policy"]
    about = json.loads(request(assistant, "/assistant")[1])
    assert (about["tuned"], about["base"], about["system"]) == ("tiny", "tiny/base", "Solve it.")
    assert about["max_tokens"] == 24 and about["verdict"].startswith("passed")
    html = json.loads(request(assistant, "/markdown", b'{"text": "**5** <script>x</script>"}')[1])["html"]
    assert "<strong>5</strong>" in html and "<script" not in html


@pytest.mark.parametrize("path", ["/nix", "/page/nix", "/page/..%2fapp.py", "/page/../app.py", "/v1/nix"])
def test_what_is_not_there_is_a_404(assistant, path):
    status, body, _ = request(assistant, path)
    assert status == 404 and "error" in json.loads(body)


def test_a_method_that_is_not_meant_is_a_405(assistant):
    assert request(assistant, "/v1/chat/completions")[0] == 405


def test_nobody_waits_while_the_conversation_of_somebody_else_is_read(assistant, client):
    with ThreadPoolExecutor(1) as pool:
        with assistant.assistant._asking:
            answer = pool.submit(ask, client, "tiny", QUESTIONS[0])
            for _ in range(20):
                client.with_options(timeout=20).models.list()
                time.sleep(0.02)
        assert said(answer.result())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(assistant, stream):
    host = assistant.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host)
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 480, "stream": stream}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), {"Content-Type": "application/json"})
    until(lambda: assistant.assistant.engine.at_work() == 1, pause=0.001)
    connection.close()
    until(lambda: assistant.assistant.engine.at_work() == 0, seconds=10, pause=0.01)


def test_a_client_that_leaves_before_the_first_event_frees_its_place(assistant):
    async def gone(message):
        raise OSError("the connection is closed")

    async def asked():
        messages = [{"role": "user", "content": QUESTIONS[0]}]
        request = request_of(json.dumps({"model": "tiny", "messages": messages, "max_tokens": 480}).encode())
        waiting = Waiting(asyncio.get_running_loop())
        row, prompt = assistant.assistant.ask("tiny", request.conversation, request.how, waiting)
        streamed = Streamed(Answering(assistant.assistant, request, waiting, row, prompt))
        with pytest.raises(ClientDisconnect):
            await streamed({"type": "http", "asgi": {"spec_version": "2.4"}}, gone, gone)
        return row

    assert asyncio.run(asked()).left.is_set()


def test_thirty_two_clients_are_answered_together(assistant, client):
    widths = []
    hook = assistant.assistant.model.get_base_model().register_forward_pre_hook(
        lambda module, args, given: widths.append(len(given["input_ids"])), with_kwargs=True
    )
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda i: ask(client, "tiny", QUESTIONS[i % 8], max_tokens=20), range(32)))
    hook.remove()
    assert len({said(answer) for answer in answers}) == len(QUESTIONS)
    assert max(widths) > 8


def test_an_end_of_the_server_is_told_to_those_who_wait(assistant, client, monkeypatch):
    # By the engine's own end, since the server's would take the address from the other tests.
    from finetuning.assistant.batches import Engine

    spoken = assistant.assistant
    engine = Engine(spoken.model, lambda side: spoken._as(side), spoken.tokenizer, spoken.stop)
    monkeypatch.setattr(spoken, "engine", engine)
    threading.Thread(target=lambda: (time.sleep(0.3), engine.close())).start()
    with pytest.raises(openai.RateLimitError, match="the assistant was ended"):
        ask(client, "tiny", "x", max_tokens=480)
