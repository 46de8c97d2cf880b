"""Makes token ids and labels of conversations, by the base model's chat template.

[{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
-> <|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n5<|im_end|>\\n
   of which "5<|im_end|>" is supervised: the answer and the stop token, nothing else
"""

import gc
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from finetuning.chat.chat_summary import ChatSummary, Histogram, Lengths, ShownToken
from finetuning.chat.conversations import Batch, batches
from finetuning.chat.earlier_answers import EarlierAnswers
from finetuning.chat.rendering import Renderer
from finetuning.chat.shuffling import write_in_order
from finetuning.chat.splits import HELD_OUT, KEPT, Fate, Split, split
from finetuning.chat.template_settings import TODAY, writes_date
from finetuning.chat.tokenized_rows import TokenizedRows
from finetuning.checks import eval_rows
from finetuning.checks.balance import balance
from finetuning.checks.counted import Counted, Dropped
from finetuning.checks.findings import Count, FindingsTable, most_frequent
from finetuning.checks.judgement import EXAMPLES, remedy_of
from finetuning.dataset.format_recognition import recognise_all
from finetuning.dataset.raw_folder import read_sources
from finetuning.dataset.unread import unread_by_source
from finetuning.errors import FinetuningError
from finetuning.garbage import looking_at_new
from finetuning.knowledge.retriever import Retriever
from finetuning.knowledge.rows import Contexts, documents_of_exam
from finetuning.recipe.columns import OF_KNOWLEDGE
from finetuning.recipe.dataset import sources
from finetuning.recipe.recipe import Recipe
from finetuning.secrets import find_secret, masked
from finetuning.tokens import NOT_SUPERVISED, Tokens

HISTOGRAM_BINS = 20
PREVIEW_CONVERSATIONS, PREVIEW_TOKENS, READ_FOR_PREVIEW = 3, 400, 20
# Columns of tokens and labels; the second ones are there for preferences to be learned alone.
PREVIEWED = (("input_ids", "labels"), ("rejected_input_ids", "rejected_labels"))
COLLECTED_AFTER = 100  # batches
# One makes lists of what the tokenizer found while the others wait for it, which itself uses all cores.
THREADS = 3
SIDES = {"train": Fate.TRAIN, "eval": Fate.EVAL, "dev": Fate.DEV}
# Why a row is in no split, and the check that counts it; what is meant to be left out is no fault.
LEFT_OUT = {
    Fate.DUPLICATE: ("", "word for word an earlier row"),
    Fate.NEAR_DUPLICATE: ("", "nearly an earlier row"),
    Fate.OVERLAP: ("overlap", "the question is in eval"),
    Fate.NEAR_OVERLAP: ("overlap", "nearly a question in eval"),
    Fate.EXAMINED: ("", "feedback on a question in eval, or nearly one"),
}


def write_chat(
    raw_folder: Path,
    folder: Path,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    retriever: Retriever | None = None,
    hidden: frozenset[str] = frozenset(),
) -> ChatSummary:
    """Write the splits as tokens, what was dropped and found, and the tokenizer into `folder`; return its summary.

    Every row of `raw_folder` is in `train.parquet`, in `eval.parquet`, in `dev.parquet` for a recipe with
    `dataset.dev`, or in `dropped.parquet` with a reason; `findings.parquet` lists rows that are kept and have a fault.

    Args:
        tokenizer: with its chat template set (`load_template`).
        retriever: finds the passages that questions are asked with, for a recipe with `knowledge`.
        hidden: the documents of which no passage is shown in the preview.

    Raises:
        FinetuningError: a source's format is not recognised, the template cannot be used, or a split is empty.
    """
    method = recipe.training.method
    formats = recognise_all(raw_folder, recipe.dataset, recipe.file, method)
    if "text" in formats.values() and recipe.chat.over_length != "drop":
        raise FinetuningError(
            f"{recipe.file}: chat.over_length: {recipe.chat.over_length} would be ignored for rows of text, which are "
            "cut into rows of chat.max_length tokens with nothing lost. Leave it out."
        )
    if "text" in formats.values() and recipe.knowledge:
        raise FinetuningError(
            f"{recipe.file}: knowledge: rows of text ask nothing that passages could be found for. Leave knowledge "
            "out, or write rows of another format, such as question-answer."
        )
    unread = unread_by_source(
        raw_folder, recipe.dataset, formats, recipe.file, OF_KNOWLEDGE if recipe.knowledge else ()
    )
    contexts = None
    if retriever and recipe.context:
        examined = documents_of_exam(raw_folder, recipe.dataset)
        contexts = Contexts(retriever, recipe.context, examined, recipe.dataset.seed)
    folder.mkdir(parents=True, exist_ok=True)
    with FindingsTable(folder / "dropped.parquet") as dropped, FindingsTable(folder / "findings.parquet") as findings:
        try:
            renderer = Renderer(tokenizer, recipe.chat.train_on_reasoning)
            with (
                TokenizedRows(folder, recipe, renderer, dropped, findings, contexts is not None) as rows,
                EarlierAnswers(folder, recipe.chat.max_length, findings) as earlier,
                looking_at_new(),
            ):
                for batch, tokens, before in _tokenized(
                    renderer, batches(raw_folder, recipe, formats, renderer, dropped, contexts)
                ):
                    numbers = rows.add(batch, tokens)
                    if before is not None and not rows.last_alone:
                        earlier.add(batch, before, numbers)
        except FinetuningError as error:
            raise FinetuningError(f"{recipe.file}: base_model.chat_template: {error}") from error
        is_eval = np.concatenate([np.zeros(0, bool), *rows.index.is_eval])
        decided = split(rows.index, rows.sketches.pairs(is_eval, recipe.dataset.similarity), recipe.dataset)
        _record(decided, rows.path, dropped, findings)
    for side, fate in SIDES.items():
        if fate == Fate.DEV and not recipe.dataset.dev:
            continue
        if not (decided.fate == fate).any():
            became = _what_became(dropped, decided, side)
            raise FinetuningError(f"{recipe.file}: dataset: the {side} split is empty. {became}")
        main, others = earlier.positions(decided, fate)
        sources_of = [(rows.path, main), (earlier.path, others)] if len(others) else [(rows.path, main)]
        write_in_order(sources_of, folder / f"{side}.parquet")
    rows.path.unlink()
    earlier.path.unlink()
    rows.sketches.remove()
    tokenizer.save_pretrained(folder / "tokenizer")
    in_train = decided.fate == Fate.TRAIN
    if retriever and hidden:
        rows.hidden_passages = retriever.passages_of(hidden)
    notes = rows.texts.notes(recipe.chat.max_length)
    if method == "kto":
        left_out = "; ".join(_left_out(found, dropped) for found in dropped.by_reason()[:5])
        notes += balance(np.concatenate(rows.desirable)[in_train], recipe, left_out)
    kept_lengths = np.concatenate(rows.kept_lengths)[in_train]
    more, more_supervised = earlier.tokens_in(decided, Fate.TRAIN)
    in_eval, in_dev = (len(earlier.tokens_in(decided, fate)[0]) for fate in HELD_OUT)
    return ChatSummary(
        train_rows=int(in_train.sum()) + len(more),
        eval_rows=int((decided.fate == Fate.EVAL).sum()) + in_eval,
        dev_rows=int((decided.fate == Fate.DEV).sum()) + in_dev,
        dropped=dropped.by_reason(),
        unused_columns={path: list(map(masked, names)) for path, names in unread.items()},
        checks=_checks(raw_folder, recipe, rows, decided),
        tokens=int(np.concatenate(rows.tokens)[in_train].sum()) + int(more.sum()),
        supervised_tokens=int(np.concatenate(rows.supervised)[in_train].sum()) + int(more_supervised.sum()),
        earlier_answers=len(more) + in_eval + in_dev,
        template_date=TODAY.isoformat() if writes_date(str(tokenizer.chat_template)) else None,
        template_kwargs=dict(recipe.chat.template_kwargs),
        stop_token=renderer.stop,
        given_tokens=getattr(tokenizer, "given_tokens", {}),
        lengths=Lengths(_histogram(kept_lengths), int(np.concatenate(rows.lengths).max())),
        text_rows=int(np.concatenate(rows.texts.is_text)[in_train].sum()),
        notes=notes,
        preview=_preview(folder / "train.parquet", rows, PREVIEWED if method == "dpo" else PREVIEWED[:1]),
    )


def _tokenized(renderer: Renderer, found: Iterable[Batch]) -> Iterator[tuple[Batch, Tokens, Tokens | None]]:
    """Yield each batch with its tokens, which threads make while other batches are read and checked.

    After them come those of all earlier answers that are laid out by themselves, or None.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[tuple[Batch, Future[Tokens], Future[Tokens] | None]] = deque()
        for number, batch in enumerate(found, 1):
            if number % COLLECTED_AFTER == 0:
                gc.collect()
            earlier = [before for laid_out in batch.laid_out for before in laid_out.earlier]
            later = pool.submit(renderer.tokenize, earlier) if earlier else None
            waiting.append((batch, pool.submit(renderer.tokenize, batch.laid_out), later))
            if len(waiting) > THREADS:
                first, tokens, before = waiting.popleft()
                yield first, tokens.result(), before and before.result()
        for batch, tokens, before in waiting:
            yield batch, tokens.result(), before and before.result()


def _record(decided: Split, path: Path, dropped: FindingsTable, findings: FindingsTable) -> None:
    """Add the rows that the split left out to `dropped`, and the repeats that it kept to `findings`."""
    kept = decided.fate <= KEPT[-1]
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


def _checks(raw_folder: Path, recipe: Recipe, rows: TokenizedRows, decided: Split) -> dict[str, Counted]:
    """Return what each check counted: how many rows, of how many, and the first ones."""
    readable = sum(source.rows for source in read_sources(raw_folder))
    rendered, kept = sum(map(len, rows.lengths)), len(decided.fate)
    overlapping = (decided.fate == Fate.OVERLAP) | (decided.fate == Fate.NEAR_OVERLAP)
    of = {
        "bad_rows": readable,
        "refused_rows": rendered + rows.dropped.checks.get("refused_rows", Count()).rows,
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
        **(dict.fromkeys(("evidence", "document_leak"), readable) if recipe.knowledge else {}),
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
            reason=most_frequent(counts),
        )
    return found | _eval_checks(recipe, rows, decided)


def _eval_checks(recipe: Recipe, rows: TokenizedRows, decided: Split) -> dict[str, Counted]:
    """Return whether eval is as large as asked for, and like train.

    Rows of `eval.sources` are meant to be like those of train where these are of one source; where several are mixed,
    they may well stand for one of them.
    """
    kept = decided.fate <= KEPT[-1]
    is_eval = decided.fate[kept] == Fate.EVAL
    if not recipe.dataset.eval.fraction:
        size = Counted(0, 0, [])
    else:
        size = eval_rows.size(int(is_eval.sum()), decided.wanted, len(is_eval))
    if not recipe.dataset.eval.fraction and len(recipe.dataset.sources) > 1:
        return {"eval_size": size, "eval_likeness": Counted(0, 0, [])}
    answer, source, tokens = (
        np.concatenate(lists)[kept] for lists in (rows.index.answer, rows.index.source, rows.kept_lengths)
    )
    names = {number: path for number, (_, path) in enumerate(sources(recipe.dataset).values())}
    by_source = eval_rows.sources(source, names) if recipe.dataset.eval.fraction else []
    aspects = eval_rows.Aspects(rows.answers.kinds(answer), by_source, eval_rows.lengths(tokens))
    return {"eval_size": size, "eval_likeness": eval_rows.unlike(is_eval, aspects)}


def _what_became(dropped: FindingsTable, decided: Split, side: str) -> str:
    """Say why a split is empty, and what to write."""
    reasons = [_left_out(found, dropped) for found in dropped.by_reason()[:5]]
    left = int((decided.fate <= KEPT[-1]).sum())
    if left and decided.dev_wanted and (side == "dev" or (decided.fate == Fate.DEV).any()):
        return (
            f"{'; '.join(reasons or ['No row was dropped'])}: {left} rows are left, which are too few for "
            f"dataset.dev.fraction. Lower it, or add rows."
        )
    if not left or not decided.wanted:
        return "; ".join(reasons or ["No row was dropped: the sources have none"]) + "."
    return f"{'; '.join(reasons) or 'No row was dropped'}: {_undivided(left, decided)}"


def _left_out(found: Dropped, dropped: FindingsTable) -> str:
    """Say how many rows were dropped for a reason, where the first one has it, and what to write."""
    field = dropped.reasons[found.reason].examples[0].field
    remedy = remedy_of(found.reason, field)
    place = f"{found.example}:{field}" if field else found.example
    were = "row was" if found.rows == 1 else "rows were"
    return f"{found.rows} {were} dropped: {found.reason} (such as {place})" + (f". {remedy}" if remedy else "")


def _undivided(rows: int, decided: Split) -> str:
    """Say why the rows that are left cannot be divided by `eval.fraction`, and what to write."""
    other = "write `dataset.eval.sources` with rows that ask something else"
    if rows == 1:
        return f"the sources have too few rows, one is left. Add rows, or {other}."
    if decided.groups > 1:
        return f"dataset.eval.fraction takes all {rows} rows that are left. Lower it, or add rows."
    if decided.questions == 1:
        return (
            f"all {rows} rows that are left ask the same question, and none is in both train and eval, or the exam "
            f"would ask what was learned by heart. Give the rows questions of their own, or {other}."
        )
    return (
        f"all {rows} rows that are left ask nearly the same ({decided.questions} questions that differ a little), and "
        "what is nearly the same is never in both train and eval. If they are different questions, write "
        f"`dataset: {{similarity: 1}}`; otherwise {other}."
    )


def _histogram(lengths: np.ndarray) -> Histogram:
    """Count the lengths in at most HISTOGRAM_BINS bins, all equally wide."""
    low, high = int(lengths.min()), int(lengths.max()) + 1
    width = -(-(high - low) // HISTOGRAM_BINS)
    counts, edges = np.histogram(lengths, bins=np.arange(low, high + width, width))
    return Histogram(edges.tolist(), counts.tolist())


def _preview(path: Path, found: TokenizedRows, sides: tuple[tuple[str, str], ...]) -> list[list[ShownToken]]:
    """Return the first conversations of a split, token by token.

    Each one's sides follow one another. Those with text that looks like a secret are passed over, and those that are a
    part of such a text.
    """
    tokenizer = found.renderer.tokenizer
    with pq.ParquetFile(path, pre_buffer=False) as file:
        columns = [*chain(*sides), "place", *({"passages"} & set(file.schema_arrow.names))]
        rows = next(file.iter_batches(READ_FOR_PREVIEW, columns=columns)).to_pylist()
    whole = [row for row in rows if not found.hides(row["place"], row.get("passages") or ())]
    shown = [row for row in whole if not any(find_secret(str(tokenizer.decode(row[ids]))) for ids, _ in sides)]
    return [
        [
            ShownToken(str(tokenizer.decode([token])), token, supervised=label != NOT_SUPERVISED)
            for token, label in islice(zip(row[ids], row[labels], strict=True), PREVIEW_TOKENS)
        ]
        for row in shown[:PREVIEW_CONVERSATIONS]
        for ids, labels in sides
    ]
