"""Makes token ids and labels of conversations, by the base model's chat template.

[{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
-> <|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n5<|im_end|>\\n
   of which "5<|im_end|>" is supervised: the answer and the stop token, nothing else
"""

import gc
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from finetuning.chat.chat_summary import ChatSummary, Histogram, Lengths, ShownToken
from finetuning.chat.conversations import Batch, batches
from finetuning.chat.rendering import Renderer
from finetuning.chat.shuffling import write_in_order
from finetuning.chat.splits import Fate, Split, split
from finetuning.chat.tokenized_rows import TokenizedRows
from finetuning.checks.counted import Counted
from finetuning.checks.findings import Count, FindingsTable
from finetuning.checks.judgement import EXAMPLES
from finetuning.checks.secrets import find_secret
from finetuning.dataset.format_recognition import recognise_all, unused_columns
from finetuning.dataset.raw_folder import read_sources
from finetuning.errors import FinetuningError
from finetuning.recipe.recipe import Recipe
from finetuning.tokens import NOT_SUPERVISED, Tokens

HISTOGRAM_BINS = 20
PREVIEW_CONVERSATIONS, PREVIEW_TOKENS, READ_FOR_PREVIEW = 3, 400, 20
# Columns of tokens and labels; the second ones are there for preferences to be learned alone.
PREVIEWED = (("input_ids", "labels"), ("rejected_input_ids", "rejected_labels"))
COLLECTED_AFTER = 100  # batches
# One makes lists of what the tokenizer found while the others wait for it, which itself uses all cores.
THREADS = 3
SIDES = {"train": Fate.TRAIN, "eval": Fate.EVAL}
# Why a row is in neither split, and the check that counts it; repeats that the recipe has dropped are no fault.
LEFT_OUT = {
    Fate.DUPLICATE: ("", "word for word an earlier row"),
    Fate.NEAR_DUPLICATE: ("", "nearly an earlier row"),
    Fate.OVERLAP: ("overlap", "the question is in eval"),
    Fate.NEAR_OVERLAP: ("overlap", "nearly a question in eval"),
}


def write_chat(raw_folder: Path, folder: Path, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> ChatSummary:
    """Write both splits as tokens, what was dropped and found, and the tokenizer into `folder`; return its summary.

    Every row of `raw_folder` is in `train.parquet`, in `eval.parquet`, or in `dropped.parquet` with a reason;
    `findings.parquet` lists rows that are kept and have a fault.

    Args:
        tokenizer: with its chat template set (`load_template`).

    Raises:
        FinetuningError: a source's format is not recognised, the template cannot be used, or a split is empty.
    """
    method = recipe.training.method
    formats = recognise_all(raw_folder, recipe.dataset, recipe.file, method)
    folder.mkdir(parents=True, exist_ok=True)
    with FindingsTable(folder / "dropped.parquet") as dropped, FindingsTable(folder / "findings.parquet") as findings:
        try:
            renderer = Renderer(tokenizer)
            with TokenizedRows(folder, recipe, renderer, dropped, findings) as rows, _rare_collection():
                for batch, tokens in _tokenized(
                    renderer, batches(raw_folder, recipe.dataset, formats, renderer, dropped, method)
                ):
                    rows.add(batch, tokens)
        except FinetuningError as error:
            raise FinetuningError(f"{recipe.file}: base_model.chat_template: {error}") from error
        is_eval = np.concatenate([np.zeros(0, bool), *rows.index.is_eval])
        decided = split(rows.index, rows.sketches.pairs(is_eval, recipe.dataset.similarity), recipe.dataset)
        _record(decided, rows.path, dropped, findings)
    for side, fate in SIDES.items():
        if not (decided.fate == fate).any():
            raise FinetuningError(f"{recipe.file}: dataset: the {side} split is empty. {_what_became(dropped)}")
        write_in_order(rows.path, np.where(decided.fate == fate, decided.position, -1), folder / f"{side}.parquet")
    rows.path.unlink()
    rows.sketches.path.unlink()
    tokenizer.save_pretrained(folder / "tokenizer")
    in_train = decided.fate == Fate.TRAIN
    kept_lengths = np.concatenate(rows.kept_lengths)[in_train]
    return ChatSummary(
        train_rows=int(in_train.sum()),
        eval_rows=int((decided.fate == Fate.EVAL).sum()),
        dropped=dropped.by_reason(),
        unused_columns=unused_columns(raw_folder, recipe.dataset, formats),
        checks=_checks(raw_folder, rows, decided),
        tokens=int(np.concatenate(rows.tokens)[in_train].sum()),
        supervised_tokens=int(np.concatenate(rows.supervised)[in_train].sum()),
        stop_token=renderer.stop,
        given_tokens=getattr(tokenizer, "given_tokens", {}),
        lengths=Lengths(_histogram(kept_lengths), int(np.concatenate(rows.lengths).max())),
        preview=_preview(folder / "train.parquet", tokenizer, PREVIEWED if method == "dpo" else PREVIEWED[:1]),
    )


def _tokenized(renderer: Renderer, found: Iterable[Batch]) -> Iterator[tuple[Batch, Tokens]]:
    """Yield each batch with its tokens, which threads make while other batches are read and checked."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[tuple[Batch, Future[Tokens]]] = deque()
        for number, batch in enumerate(found, 1):
            if number % COLLECTED_AFTER == 0:
                gc.collect()
            waiting.append((batch, pool.submit(renderer.tokenize, batch.laid_out)))
            if len(waiting) > THREADS:
                first, tokens = waiting.popleft()
                yield first, tokens.result()
        for batch, tokens in waiting:
            yield batch, tokens.result()


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Turn off the automatic search for cycles of objects: rows make none, and millions of other objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _record(decided: Split, path: Path, dropped: FindingsTable, findings: FindingsTable) -> None:
    """Add the rows that the split left out to `dropped`, and the repeats that it kept to `findings`."""
    kept = decided.fate <= Fate.EVAL
    start = 0
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            part = slice(start, start + batch.num_rows)
            start += batch.num_rows
            for i in np.flatnonzero(~kept[part]).tolist():
                dropped.add(str(batch["place"][i]), *LEFT_OUT[Fate(decided.fate[part][i])])
            for check, marks in (("duplicates", decided.duplicate), ("near_duplicates", decided.near_duplicate)):
                for i in np.flatnonzero(marks[part] & kept[part]).tolist():
                    findings.add(str(batch["place"][i]), check, "repeats an earlier row")


def _checks(raw_folder: Path, rows: TokenizedRows, decided: Split) -> dict[str, Counted]:
    """Return what each check counted: how many rows, of how many, and the first ones."""
    readable = sum(source.rows for source in read_sources(raw_folder))
    rendered, kept = sum(map(len, rows.lengths)), len(decided.fate)
    overlapping = (decided.fate == Fate.OVERLAP) | (decided.fate == Fate.NEAR_OVERLAP)
    of = {
        "bad_rows": readable,
        "max_length": rendered,
        "supervision": kept,
        "stop_token": kept,
        "bos_token": kept if rows.bos is not None else 0,
        "duplicates": kept,
        "near_duplicates": kept,
        "overlap": int((overlapping | (decided.fate == Fate.TRAIN)).sum()),
        "secrets": kept,
        "special_tokens": kept,
        "round_trip": rows.round_trips,
    }
    lengths = np.concatenate(rows.lengths)
    percentiles = np.percentile(lengths, range(101), method="inverted_cdf").astype(int).tolist()
    found = {}
    for check, total in of.items():
        counts = [table.checks.get(check, Count()) for table in (rows.dropped, rows.findings)]
        examples = [example for count in counts for example in count.examples]
        found[check] = Counted(
            rows=sum(count.rows for count in counts) + (decided.overlap if check == "overlap" else 0),
            of=total,
            examples=examples[:EXAMPLES],
            percentiles=percentiles if check == "max_length" else None,
        )
    return found


def _what_became(dropped: FindingsTable) -> str:
    reasons = [f"{x.rows} rows were dropped: {x.reason} (such as {x.example})" for x in dropped.by_reason()]
    if reasons:
        return "; ".join(reasons[:5]) + "."
    return (
        "No row was dropped: the sources have too few, or so many questions are nearly the same that they could not be "
        "parted; where all begin with one long instruction, raise dataset.similarity."
    )


def _histogram(lengths: np.ndarray) -> Histogram:
    """Count the lengths in at most HISTOGRAM_BINS bins, all equally wide."""
    low, high = int(lengths.min()), int(lengths.max()) + 1
    width = -(-(high - low) // HISTOGRAM_BINS)
    counts, edges = np.histogram(lengths, bins=np.arange(low, high + width, width))
    return Histogram(edges.tolist(), counts.tolist())


def _preview(
    path: Path, tokenizer: PreTrainedTokenizerBase, sides: tuple[tuple[str, str], ...]
) -> list[list[ShownToken]]:
    """Return the first conversations of a split, token by token.

    Each one's sides follow one another. Those with text that looks like a secret are passed over.
    """
    with pq.ParquetFile(path, pre_buffer=False) as file:
        rows = next(file.iter_batches(READ_FOR_PREVIEW, columns=list(chain(*sides)))).to_pylist()
    shown = [row for row in rows if not any(find_secret(str(tokenizer.decode(row[ids]))) for ids, _ in sides)]
    return [
        [
            ShownToken(str(tokenizer.decode([token])), token, supervised=label != NOT_SUPERVISED)
            for token, label in islice(zip(row[ids], row[labels], strict=True), PREVIEW_TOKENS)
        ]
        for row in shown[:PREVIEW_CONVERSATIONS]
        for ids, labels in sides
    ]
