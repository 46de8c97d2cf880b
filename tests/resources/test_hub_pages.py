"""What `make hub` shows a person in a browser: cards and reports as pages, whoever published them."""

import base64
import html
import json
import re

import pytest
from huggingface_hub import HfApi
from starlette.testclient import TestClient

from resources.hub_server.accounts import Account
from resources.hub_server.app import create_app
from resources.hub_server.pages import LARGEST
from tests.resources.serving import serving

ALICE = {"Authorization": "Bearer hf_alice"}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CARD = """---
license: mit
tags: [lora]
---

# A model

| metric | base | tuned |
| --- | ---: | ---: |
| exact | 0.1 | 0.5 |

![Base beside tuned](evaluation/metrics.png)

More in the [report](evaluation/report.md), the [recipe](./recipe.yaml?plain=1) and [plots](evaluation/), by
[the base](/alice/base/tree/main).

<details>
<summary>All settings</summary>

```yaml
a: 1
```

</details>
"""
REPORT = "# Report\n\n![Loss](loss.png) of [the card](../README.md) and [what is above](../../../../api/models)\n"
FILES = {
    "README.md": CARD.encode(),
    "recipe.yaml": b"name: a\n",
    "evaluation/report.md": REPORT.encode(),
    "evaluation/metrics.png": PNG,
    "evaluation/loss.png": PNG,
}


def hub_in(folder, **options):
    app = create_app(folder, {"hf_alice": Account("alice")}, **options)
    return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    client = hub_in(tmp_path_factory.mktemp("hub"))
    publish(client, "model", FILES)
    assert client.post("/api/models/alice/model/tag/main", json={"tag": "v/1"}, headers=ALICE).status_code == 200
    return client


def publish(hub, name, files, **settings):
    body = {"name": name, **settings}
    assert hub.post("/api/repos/create", json=body, headers=ALICE).status_code in (200, 409)
    changes = [
        {"key": "file", "value": {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}}
        for path, content in files.items()
    ]
    lines = "\n".join(map(json.dumps, [{"key": "header", "value": {"summary": "it"}}, *changes]))
    assert hub.post(f"/api/models/alice/{name}/commit/main", content=lines, headers=ALICE).status_code == 200


def links(page: str, attribute: str) -> list[str]:
    return [html.unescape(link) for link in re.findall(rf' {attribute}="([^"]*)"', page)]


def test_a_card_is_a_page_with_its_table_code_and_metadata_folded_away(hub):
    page = hub.get("/alice/model").text
    assert "A model</h1>" in page and '<td align="right">0.5</td>' in page and "<pre><code>a: 1" in page
    assert "<summary>Metadata</summary><pre>license: mit\ntags: [lora]</pre></details>" in page
    assert "<summary>All settings</summary>" in page and '<meta name="viewport"' in page


def test_every_link_and_picture_of_a_card_opens_at_the_revision_that_is_shown(hub):
    publish(hub, "base", {"a.txt": b"a"})
    for start in ("/alice/model", "/alice/model/tree/v%2F1", "/alice/model/blob/v%2F1/evaluation/report.md"):
        page = hub.get(start)
        pictures = links(page.text, "src")
        assert pictures and all(hub.get(picture).content == PNG for picture in pictures)
        followed = [link for link in links(page.text, "href") if not link.startswith("#")]
        assert len(followed) > 2
        assert {link: hub.get(link).status_code for link in followed} == dict.fromkeys(followed, 200) | {
            link: 404 for link in followed if link.endswith("/api/models")
        }


def test_what_an_older_revision_shows_stays_as_it_was(tmp_path):
    hub = hub_in(tmp_path)
    publish(hub, "model", {"README.md": b"![a](a.png)", "a.png": PNG})
    old = links(hub.get("/alice/model").text, "src")[0]
    publish(hub, "model", {"a.png": PNG + b"new"})
    assert hub.get(old).content == PNG
    assert hub.get(links(hub.get("/alice/model").text, "src")[0]).content == PNG + b"new"


def test_a_markdown_file_is_a_page_and_its_text_stays_at_hand(hub):
    page = hub.get("/alice/model/blob/main/evaluation/report.md")
    assert page.headers["Content-Type"].startswith("text/html") and "Report</h1>" in page.text
    raw = next(link for link in links(page.text, "href") if "/raw/" in link)
    assert hub.get(raw).text == REPORT and hub.get(raw).headers["Content-Type"].startswith("text/plain")
    resolved = hub.get("/alice/model/resolve/main/evaluation/report.md")
    assert resolved.text == REPORT and resolved.headers["Content-Type"] == "application/octet-stream"


def test_a_file_that_is_no_markdown_is_shown_as_it_is(hub):
    assert hub.get("/alice/model/blob/main/recipe.yaml").text == "name: a\n"
    assert hub.get("/alice/model/blob/main/evaluation/loss.png").headers["Content-Type"] == "image/png"


def test_a_folder_shows_what_is_in_it_and_one_that_is_not_there_is_not_found(hub):
    page = hub.get("/alice/model/tree/main/evaluation").text
    assert "evaluation/report.md" in page and "recipe.yaml" not in page and "A model</h1>" not in page
    assert hub.get("/alice/model/tree/main/nowhere").status_code == 404
    assert hub.get("/alice/model/tree/main/evaluation/report.m").status_code == 404


def test_a_page_may_run_nothing_and_load_only_pictures_of_this_hub(hub):
    for address in ("/", "/alice/model", "/alice/model/blob/main/README.md", "/alice/model/raw/main/README.md"):
        policy = hub.get(address).headers["Content-Security-Policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
        assert rules["img-src"] == "'self'" and "script-src" not in rules


CARDS = {
    "a script": b"<script>alert(1)</script>\n\n<img src=x onerror=alert(1)>",
    "a frame": b"<iframe src='/'></iframe><style>*{display:none}</style>",
    "metadata that is no YAML": b"---\na: [\n  b: {{\n---\n# Title",
    "metadata that has no end": b"---\na: b\n" * 2000,
    "metadata of two kinds": b"---\n<script>alert(1)</script>\n---\n# Title",
    "other bytes": b"# \xff\xfe\xc3(\x00 \xed\xa0\x80",
    "a mark of its encoding": b"\xef\xbb\xbf---\na: b\n---\n# Title",
    "quotes in quotes": b">" * 10_000,
    "brackets in brackets": b"[" * 10_000,
    "names that are ways": b"![x](../../../../etc/passwd) ![y](%2e%2e/%00) [z](//[) <a href='http://[::1'>x</a>",
    "megabytes": b"# Title\n\n[a](b) " * 200_000,
    "more than is read": b"#" * (LARGEST + 1),
    "nothing": b"",
}


@pytest.mark.parametrize("case", CARDS)
def test_whatever_a_card_is_its_pages_are_shown_and_harmless(hub, case):
    publish(hub, "any", {"README.md": CARDS[case]})
    for address in ("/alice/any", "/alice/any/blob/main/README.md"):
        page = hub.get(address)
        assert page.status_code == 200
        if page.headers["Content-Type"].startswith("text/html"):
            shown = page.text.partition("</style>")[2]
            assert not re.search(r"<(script|iframe|style|base|form)|<[^>]*\son\w+=", shown)
    assert hub.get("/alice/any/resolve/main/README.md").content == CARDS[case]


def test_metadata_is_never_a_heading(hub):
    for case in ("metadata that is no YAML", "metadata of two kinds", "a mark of its encoding"):
        publish(hub, "any", {"README.md": CARDS[case]})
        page = hub.get("/alice/any").text
        assert "<summary>Metadata</summary>" in page and "Title</h1>" in page and "<h2 id" not in page


def test_what_is_private_or_gated_is_shown_to_nobody_who_may_not_see_it(tmp_path):
    hub = hub_in(tmp_path)
    publish(hub, "secret", FILES, private=True)
    publish(hub, "gated", FILES)
    assert hub.put("/api/models/alice/gated/settings", json={"gated": "auto"}, headers=ALICE).status_code == 200
    for page in ("blob/main/README.md", "raw/main/README.md", "blob/main/evaluation/loss.png"):
        assert hub.get(f"/alice/secret/{page}").status_code == hub.get(f"/alice/gated/{page}").status_code == 404
    for page in ("", "/tree/main", "/tree/main/evaluation"):
        assert hub.get(f"/alice/secret{page}").status_code == 404
        shown = hub.get(f"/alice/gated{page}")
        assert shown.status_code == 200 and "A model" not in shown.text and "evaluation/report.md" in shown.text
    owner = hub_in(tmp_path, show_private=True)
    for repo in ("secret", "gated"):
        page = owner.get(f"/alice/{repo}").text
        assert "A model</h1>" in page and owner.get(links(page, "src")[0]).content == PNG


def test_every_address_that_the_client_names_opens_a_page(tmp_path):
    with serving(tmp_path, "--port", "0") as server:
        api: HfApi = server.api()
        created = api.create_repo("alice/named")
        one = api.upload_file(path_or_fileobj=b"# A", path_in_repo="docs/a.md", repo_id="alice/named")
        (tmp_path / "up").mkdir()
        (tmp_path / "up" / "b.md").write_text("# B")
        many = api.upload_folder(folder_path=tmp_path / "up", path_in_repo="docs", repo_id="alice/named")
        api.create_tag("alice/named", tag="0123456789abcdef")
        named = [created, one, one.commit_url, many, many.commit_url, f"{created}/tree/0123456789abcdef"]
        for address in map(str, named):
            assert address.startswith(server.endpoint)
            assert server.ask("GET", address.removeprefix(server.endpoint))[0] == 200, address
