"""The likelihoods of several answers to one question, which is read once.

question [12 7 40], answers [9 2] and [8 1 2] -> one row [12 7 40 9 2 8 1 2], at the places 0 1 2 3 4 3 4 5, in which
no answer looks at another: the numbers are those of two rows, for two thirds of the tokens.
"""

from typing import Any, NamedTuple

import torch

from finetuning.training.supervised_loss import CrossEntropy

# Tokens of a row. What attention keeps of it grows with their square.
MOST = 512
# What the trial of a model may differ by (nats a token): of its number format's rounding, and no more.
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.25}
TRIED = ([5, 6, 7, 8, 9, 10, 11, 12], [[13, 14, 15, 16, 17, 18], [19, 20, 21, 22]])


class Packed(NamedTuple):
    """Rows of a question each with all answers to it (rows, tokens), and where the likelihood of each token is made."""

    ids: torch.Tensor
    places: torch.Tensor
    mask: torch.Tensor
    """Which token looks at which (rows, 1, tokens, tokens)."""
    sources: torch.Tensor
    """For each token of each answer, in their order, the token before it: places in all rows, end to end."""
    targets: torch.Tensor


def packed(prompts: list[list[int]], answers: list[list[int]], device: Any, most: int = MOST) -> Packed:
    """Rows of answers with the prompt of each; answers to the same prompt that follow each other share a row.

    Args:
        most: tokens of a row of several answers.
    """
    rows: list[tuple[list[int], list[list[int]]]] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        if rows and rows[-1][0] == prompt and len(prompt) + sum(map(len, [*rows[-1][1], answer])) <= most:
            rows[-1][1].append(answer)
        else:
            rows.append((prompt, [answer]))
    width = max(len(prompt) + sum(map(len, said)) for prompt, said in rows)
    ids, places = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    parts = torch.full((len(rows), width), -1)  # 0 for the prompt, then 1, 2, … for its answers
    sources: list[int] = []
    targets: list[int] = []
    for number, (prompt, said) in enumerate(rows):
        start, first = len(prompt), number * width
        ids[number, :start], places[number, :start] = torch.tensor(prompt), torch.arange(start)
        parts[number, :start] = 0
        for part, answer in enumerate(said):
            end = start + len(answer)
            ids[number, start:end], parts[number, start:end] = torch.tensor(answer), part + 1
            places[number, start:end] = torch.arange(len(prompt), len(prompt) + len(answer))
            sources += [first + len(prompt) - 1, *range(first + start, first + end - 1)][: len(answer)]
            targets += answer
            start = end
    before = torch.ones(width, width, dtype=torch.bool).tril()
    same = (parts[:, None, :] == parts[:, :, None]) | (parts[:, None, :] == 0)
    found = Packed(ids, places, (before & same)[:, None], torch.tensor(sources), torch.tensor(targets))
    return Packed(*(part.to(device) for part in found))


def scored(model: Any, head: torch.nn.Module, rows: Packed, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The log likelihood of each token of each answer, and the entropy (nats) of the model there, both (tokens,)."""
    hook = head.register_forward_pre_hook(
        lambda module, given: (given[0].flatten(0, 1)[rows.sources][None], *given[1:])
    )
    try:
        read = {"input_ids": rows.ids, "attention_mask": rows.mask, "position_ids": rows.places}
        logits = model(**read, use_cache=False).logits[0]
    finally:
        hook.remove()
    entropies = torch.zeros(len(rows.targets), device=logits.device)
    losses: Any = CrossEntropy.apply(logits if temperature == 1 else logits / temperature, rows.targets, entropies)
    return -losses, entropies


def reads_once(model: Any) -> bool:
    """Whether a model gives answers that share a question the likelihoods that they have alone.

    One whose layers look back a part of the way only, or keep a state, does not, nor one that takes no such mask; the
    others are tried with a short row.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or getattr(config, "sliding_window", None) or config._attn_implementation != "sdpa":
        return False
    prompt, answers = TRIED
    head, was_training = model.get_output_embeddings(), model.training
    model.eval()
    try:
        with torch.no_grad():
            together, _ = scored(model, head, packed([prompt] * 2, answers, model.device), 1.0)
            alone = [scored(model, head, packed([prompt], [answer], model.device), 1.0)[0] for answer in answers]
    except Exception:  # whatever a model says to a mask that it does not know
        return False
    finally:
        model.train(was_training)
    return bool((together - torch.cat(alone)).abs().max() < ROUNDING.get(model.dtype, 0.0))
