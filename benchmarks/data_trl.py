"""Prepares rows as trl's SFTTrainer does before it trains: `load_dataset`, and its own `_prepare_dataset`.

Whole conversations go in, with `assistant_only_loss`, which is what trl offers for several turns. As prompt and
completion it would tokenize every row twice, and learn from the last turn alone.
"""

import time
from pathlib import Path

import trl
from datasets import Dataset, load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from benchmarks.data_side import Job, job, report

# The same text as the chatml template of the project. The mark lets trl find what the assistant said.
TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|im_start|>assistant\n' -}}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}"
    "{%- else -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
FIRST_ROW = {"messages": [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]}


def main(job: Job) -> None:
    """The rows are prepared, and what that took is on record."""
    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
    tokenizer.chat_template = TEMPLATE
    args = settings(job)
    trainer = trainer_of(tokenizer, args)
    started = time.perf_counter()
    rows = load_dataset("json", data_files=job.rows, split="train")
    prepared = trainer._prepare_dataset(rows, tokenizer, args, False, None, "train")
    seconds = time.perf_counter() - started
    report(job, seconds, prepared.with_format("arrow").iter(1_000), version=trl.__version__)


def settings(job: Job) -> SFTConfig:
    """trl's settings for the job, which are its defaults but for what the job says."""
    return SFTConfig(
        output_dir=str(Path(job.work) / "trl"),
        assistant_only_loss=True,
        max_length=job.max_length,
        dataset_num_proc=job.workers,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )


def trainer_of(tokenizer: PreTrainedTokenizerBase, args: SFTConfig) -> SFTTrainer:
    """A trainer of a tiny model: preparing rows is one of its methods."""
    tiny = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    first = Dataset.from_list([FIRST_ROW])
    return SFTTrainer(LlamaForCausalLM(tiny), args=args, train_dataset=first, processing_class=tokenizer)


if __name__ == "__main__":
    main(job())
