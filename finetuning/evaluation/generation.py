"""Greedy answers to many prompts at once, each as it would be alone: rows of like length together, gone when they end.

>>> generate(model, tokenizer, questions, EvaluationSpec(), progress, "base")[0]
Answer(text="25 = 1 + 3n\n24 = 3n\n#### 8", tokens=22, stopped=True)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from finetuning.chat.template import before_answer, stop_token
from finetuning.chat.tokenization import added_tokens
from finetuning.errors import InfrastructureError
from finetuning.evaluation.decoding import Decoding
from finetuning.evaluation.roomy_cache import give_room
from finetuning.out_of_memory import is_out_of_memory
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec

# Share of a batch's rows that have ended before they leave it. To leave, the others' keys and values are copied once;
# to stay costs them a row's part of every further step.
LEAVE = 1 / 16


@dataclass(frozen=True)
class Question:
    """One eval row: its prompt for people and for the model (token ids), and the reference answer."""

    place: str
    messages: list[dict[str, str]]
    prompt_ids: list[int]
    reference: str
    after: str = ""
    """Of a text, what comes after the reference, by which is judged whether a secret is cut there."""


@dataclass(frozen=True)
class Answer:
    """What a model answered; `tokens` counts the stop token, `stopped` says that it came before `max_new_tokens`."""

    text: str
    tokens: int
    stopped: bool


class Batch(NamedTuple):
    """Left-padded prompts: token ids and attention mask, each (rows, longest of them)."""

    ids: torch.Tensor
    mask: torch.Tensor


class UntilSomeEnd(StoppingCriteria):
    """Ends a call of `generate` once enough of its rows have ended to be worth leaving; tells `progress` how far it is.

    Rows that have ended are filled up with the stop token.
    """

    def __init__(self, stop: int, width: int, progress: Progress, what: str) -> None:
        self.stop, self.width, self.progress, self.what = stop, width, progress, what

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Booleans (rows,): all the same."""
        rows, length = input_ids.shape
        self.progress.update(f"{self.what} · {rows} of them {length - self.width} tokens into their answers")
        # Not as a number, for which the host would wait: `generate` itself waits for what this comes to.
        ended = (input_ids[:, -1] == self.stop).sum()
        return (ended >= max(1, rows * LEAVE)).expand(rows)


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    spec: EvaluationSpec,
    progress: Progress,
    name: str,
) -> list[Answer]:
    """Answer each question, in their order, by greedy decoding in left-padded batches of similar length.

    Raises:
        FinetuningError: memory ran out.
    """
    stop, mark = stop_token(tokenizer), before_answer(tokenizer)
    # Not the stop token where there is another: a repetition penalty of the model's would count it as said before.
    pad: Any = stop if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt_ids))
    answers: dict[int, Answer] = {}
    with keep_head_whole(model), torch.inference_mode():
        for start in range(0, len(order), spec.batch_size):
            batch = order[start : start + spec.batch_size]
            prompts = left_padded([questions[i].prompt_ids for i in batch], pad, model.device)
            what = f"{name}: {start}/{len(order)} rows answered, {len(batch)} at work"
            try:
                found = continuations(model, prompts, stop, Decoding(spec.max_new_tokens), (progress, what))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise InfrastructureError(
                    f"evaluation.batch_size: memory ran out with {len(batch)} prompts answered together: lower it "
                    f"({error})"
                ) from error
            answers |= {i: answer_of(tokenizer, new, stop, mark) for i, new in zip(batch, found, strict=True)}
    return [answers[i] for i in range(len(questions))]


def keep_head_whole(model: Any) -> RemovableHandle:
    """The hook that gives the head its input in one piece.

    The last positions of the prompts are no such piece, and torch multiplies them with a copy of a frozen head's weight
    for each row: on a CPU, of SmolLM2, 57 MB and a sixth of a second.
    """
    head = model.get_output_embeddings()
    return head.register_forward_pre_hook(lambda module, given: (given[0].contiguous(), *given[1:]))


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> Batch:
    """Fill up the prompts on their left with the token `pad`, to the length of the longest."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return Batch(ids, mask)


def continuations(
    model: Any, prompts: Batch, stop: int, decoding: Decoding, told: tuple[Progress, str], cache: Any = None
) -> list[list[int]]:
    """Return what follows each prompt, to its first stop token (or beyond, with stop tokens), or to the limit.

    Args:
        told: how far it is, and of what.
        cache: what the model keeps of all tokens of the prompts but the last, where it has read them.
    """
    (ids, mask), width, limit = prompts, prompts.ids.shape[1], decoding.limit
    rows, found = list(range(len(ids))), {}
    while rows:
        give_room(cache)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            # The model makes the cache itself: after one token there is one to give room to.
            max_new_tokens=1 if cache is None else width + limit - ids.shape[1],
            eos_token_id=stop,
            pad_token_id=stop,
            stopping_criteria=StoppingCriteriaList([UntilSomeEnd(stop, width, *told)]),
            return_dict_in_generate=True,
            **decoding.settings(),
        )
        ids, cache = output.sequences, output.past_key_values
        mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
        ended = (ids[:, -1] == stop) | (ids.shape[1] == width + limit)
        found |= {rows[i]: ids[i, width:].tolist() for i in ended.nonzero()[:, 0].tolist()}
        stay = (~ended).nonzero()[:, 0]
        rows, ids, mask = [rows[i] for i in stay.tolist()], ids[stay], mask[stay]
        cache.reorder_cache(stay)
    return [found[row] for row in range(len(found))]


def answer_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: int, mark: str = "") -> Answer:
    """The answer in new token `ids`, which are padded with the `stop` token.

    Args:
        mark: what the model writes before the answer itself (`before_answer`); what it thought until then is left out.
    """
    stopped = stop in ids
    length = ids.index(stop) if stopped else len(ids)
    said = ids[:length]
    token = added_tokens(tokenizer).get(mark)
    if token in said:
        said = said[len(said) - said[::-1].index(token) :]
    text = str(tokenizer.decode(said, skip_special_tokens=True))
    return Answer(text.rpartition(mark)[2].lstrip() if mark else text, length + stopped, stopped)
