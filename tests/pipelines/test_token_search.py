import base64
import sqlite3
from urllib.parse import quote

import pytest

from tests.pipelines.token_search import places

TOKEN = "hf_A+secret/Token"


@pytest.mark.parametrize(
    "written",
    [
        f"Bearer {TOKEN}",
        f"https://hub.example?token={quote(TOKEN, safe='')}",
        *(base64.b64encode(f"{'x' * shift}{TOKEN}, and more".encode()).decode() for shift in range(5)),
        base64.urlsafe_b64encode(f"user:{TOKEN}".encode()).decode(),
    ],
)
def test_a_secret_is_found_however_it_is_written(tmp_path, written):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "log").write_text(f"before {written} after")
    (tmp_path / "other").write_text("hf_A+secret and Token")
    assert places(TOKEN, tmp_path) == [tmp_path / "below" / "log"]


def test_a_secret_is_found_in_a_row_that_lies_in_pieces_in_the_database(tmp_path):
    connection = sqlite3.connect(tmp_path / "events.db")
    connection.execute("create table events (text)")
    for before in range(4000, 4100):  # the pages are of 4096 bytes
        connection.execute("insert into events values (?)", ("x" * before + TOKEN + "y" * 5000,))
    connection.commit()
    assert places(TOKEN, tmp_path) == [tmp_path / "events.db"]
