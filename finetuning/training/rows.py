"""The rows that training reads, and those that its loss is measured on: tokens and labels of the chat dataset."""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset
from trl import pack_dataset

from finetuning.errors import FinetuningError
from finetuning.recipe.method import Method
from finetuning.training.job import TrainingJob

ALSO_READ: dict[Method, tuple[str, ...]] = {"dpo": ("rejected_input_ids", "rejected_labels"), "kto": ("desirable",)}


def train_rows(job: TrainingJob) -> Dataset:
    """The rows of the train split or, where the recipe packs, bins of at most `max_length` tokens of them.

    trl packs only while it tokenizes, and these rows are tokens already.
    """
    rows = tokens_of(job.chat_dataset / "train.parquet", job.training.method)
    return pack_dataset(rows, job.max_length, "bfd") if job.training.packing else rows


def tokens_of(path: Path, method: Method) -> Dataset:
    """`input_ids` and `labels` of one split; for `dpo` those of the rejected answers, for `kto` the judgements too."""
    # Of these alone `datasets` keeps a copy in its cache: the text stays where it is.
    return Dataset.from_parquet(str(path), columns=["input_ids", "labels", *ALSO_READ.get(method, ())])


def watched(chat_dataset: Path) -> Path:
    """The file of the rows that the eval loss is measured on: those of dev, or of eval where there is no such split."""
    dev = chat_dataset / "dev.parquet"
    return dev if dev.exists() else chat_dataset / "eval.parquet"


def files_of(chat_dataset: Path) -> list[Path]:
    """The files of all splits."""
    return [chat_dataset / f"{split}.parquet" for split in dict.fromkeys(("train", "eval", watched(chat_dataset).stem))]


def require_rows_for(chat_dataset: Path, rows: int, where: str) -> None:
    """Check that the model's embeddings, which have so many `rows`, have one for each token of the data.

    Raises:
        FinetuningError: a token's number is beyond them.
    """
    for path in files_of(chat_dataset):
        with pq.ParquetFile(path, pre_buffer=False) as file:
            columns = [name for name in file.schema_arrow.names if name.endswith("input_ids")]
            for batch in file.iter_batches(10_000, columns=columns):
                most = max((max_of(column) for column in batch.columns), default=-1)
                if most >= rows:
                    raise FinetuningError(
                        f"{where}: base_model: a row of the {path.stem} split has the token {most}, and the model's "
                        f"embeddings have {rows} rows (0 to {rows - 1}): tokenizer and weights do not belong together. "
                        "Fetch both from one revision, or give the model rows (resize_token_embeddings) and save it."
                    )


def max_of(lists: Any) -> int:
    """The largest number in a column of lists; -1 where there is none."""
    compute: Any = pc  # its functions are made when it is imported
    found = compute.max(compute.list_flatten(lists)).as_py()
    return -1 if found is None else found
