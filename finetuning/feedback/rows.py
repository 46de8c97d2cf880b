"""Makes raw rows of feedback, by what a training method learns from.

a correction -> for `sft` a conversation that ends with it, for `dpo` it beside what was said, for `kto` one good answer
and one bad one
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from finetuning.feedback.entries import Entry, arrived, folder_of

FORMATS = {"sft": "messages", "grpo": "messages", "dpo": "preference", "kto": "unpaired-preference"}


def taken(name: str, every: int) -> list[Entry]:
    """Return the entries of a name that are learned from: whole batches of `every`, so that single ones start no run.

    Those that were deleted count in their batch: without them the others would fall back into one that is not whole.

    Raises:
        FinetuningError: it is no name.
    """
    found = arrived(folder_of(name))
    return [entry for entry in found[: len(found) // every * every] if entry]


def revision_of(name: str, every: int) -> str:
    """Return a text that is another one as soon as other entries are taken: `40 entries 9f86d081884c7d65`."""
    found = taken(name, every)
    digest = hashlib.sha256("".join(entry.model_dump_json() for entry in found).encode()).hexdigest()
    return f"{len(found)} entries {digest[:16]}"


def rows_of(found: Sequence[Entry], method: str) -> Iterator[dict[str, Any]]:
    """Yield the rows that the method learns from, in the order of the entries.

    Args:
        method: sft, dpo, kto or grpo; each has a format of its own (`FORMATS`).
    """
    for entry in found:
        good, bad = judged(entry)
        if method in ("sft", "grpo") and good:
            # What the model said before is read, and not learned.
            earlier = [m | {"train": False} if m["role"] == "assistant" else m for m in entry.messages]
            yield {"messages": [*earlier, {"role": "assistant", "content": good[0]}]}
        elif method == "dpo":
            for answer in bad if good else []:
                yield {"prompt": entry.messages, "chosen": good[0], "rejected": answer}
        elif method == "kto":
            for answers, label in ((good, True), (bad, False)):
                for answer in answers:
                    yield {"prompt": entry.messages, "completion": answer, "label": label}


def judged(entry: Entry) -> tuple[list[str], list[str]]:
    """Return the answers that are good by an entry, the best first, and those that are bad.

    A correction is better than any answer; an answer that was preferred is better than the others.
    """
    good, bad = [], []
    if entry.correction is not None:
        good.append(entry.correction)
        bad.append(entry.answer_of(entry.of))
    if entry.preferred is not None:
        good.append(entry.answer_of(entry.preferred))
        bad += [said.content for said in entry.answers if said.model != entry.preferred]
    if entry.rating and entry.correction is None:
        (good if entry.rating == "good" else bad).append(entry.answer_of(entry.of))
    # What was called good and bad at once is not good, but for what somebody wrote instead of it.
    chosen = [answer for answer in dict.fromkeys(good) if answer == entry.correction or answer not in bad]
    chosen = [answer for answer in chosen if answer and answer.strip()]
    return chosen, [answer for answer in dict.fromkeys(bad) if answer and answer not in chosen]
