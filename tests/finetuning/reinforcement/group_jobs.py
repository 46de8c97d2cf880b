"""The job of training an adapter of a tiny model by rewards, on four questions."""

from datasets import Dataset
from transformers import AutoTokenizer

from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.progress import Progress
from finetuning.reinforcement.kind import any_kind_of
from finetuning.training.lora_adapter import train
from tests.finetuning.training.adapter_jobs import job_of
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative

SILENT = Progress(lambda line: None, "")
QUESTIONS = ["2 + 3?", "Solve for y: 7 = 2y + 1", "40 + 2?", "What is 9 less 4?"]
SETTINGS = {
    "method": "grpo",
    "reward": {"chrf": 1.0, "length": 0.1},
    "num_generations": 4,
    "max_completion_length": 12,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 4,
    "logging_steps": 1,
    "learning_rate": 1e-2,
}


def tiny_model(folder):
    """A tiny model that says something else to each question, with a chat template."""
    return talkative(save_tiny_model("smollm2-135m", folder, ZEPHYR))


def rows_of(tokenizer, answers=("It is #### 5",) * 4):
    """Rows as the chat dataset has them."""
    renderer, rows = Renderer(tokenizer), []
    for question, answer in zip(QUESTIONS, answers, strict=True):
        messages = [{"role": "user", "content": question}]
        prompt = renderer.prompt(Conversation(messages))
        said = tokenizer(answer, add_special_tokens=False)["input_ids"]
        messages = [*messages, {"role": "assistant", "content": answer}]
        rows.append({"input_ids": prompt + said, "labels": [-100] * len(prompt) + said, "messages": messages})
    return rows


def questions(folder, tiny, rows=None):
    """Write the splits and the tokenizer into the folder."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for split in ("train", "eval"):
        Dataset.from_list(rows or rows_of(tokenizer)).to_parquet(str(folder / f"{split}.parquet"))
    tokenizer.save_pretrained(folder / "tokenizer")


def trained(folder, tiny, training=None, progress=SILENT, lora=None, **changes):
    """The summary of such a training."""
    job = job_of(folder, tiny, {"r": 4, "lora_dropout": 0.1, **(lora or {})}, SETTINGS | (training or {}), **changes)
    return train(job, progress, kind=any_kind_of(job))
