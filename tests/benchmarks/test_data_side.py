import json

import numpy as np
import pyarrow as pa

from benchmarks.data_side import Job, digests_of, report

ROWS = [([1, 2, 3], [-100, 2, 3]), ([4, 5], [-100, -100]), ([6], [6])]


def reported(tmp_path, rows, **more) -> tuple[dict, np.ndarray]:
    job = Job("", "", "", 8, None, str(tmp_path / "record.json"))
    table = pa.table({"input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]})
    report(job, 2.0, [table, *(batch for batch in table.to_batches())], **more)
    return json.loads((tmp_path / "record.json").read_text()), np.load(digests_of(job))


def test_rows_tokens_and_supervised_tokens_are_counted_in_tables_and_batches(tmp_path):
    record, _ = reported(tmp_path, ROWS, version="1")
    assert record == {"seconds": 2.0, "rows": 6, "tokens": 12, "supervised_tokens": 6, "version": "1"}


def test_a_row_has_the_same_digests_wherever_it_stands(tmp_path):
    _, digests = reported(tmp_path, ROWS)
    _, turned = reported(tmp_path, ROWS[::-1])
    assert digests[:3].tolist() == digests[3:].tolist() == turned[2::-1].tolist()
    assert len(set(digests[:3, 0].tolist())) == 3


def test_other_labels_change_the_second_digest_alone(tmp_path):
    _, digests = reported(tmp_path, [([1, 2], [-100, 2]), ([1, 2], [1, 2])])
    assert digests[0, 0] == digests[1, 0] and digests[0, 1] != digests[1, 1]
