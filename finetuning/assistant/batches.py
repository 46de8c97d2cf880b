"""Answers many conversations at once by one model in memory, tuned and base side by side.

A row is one answer on its way. Rows that are asked of the same side in the same manner go through the model together;
after a few tokens the next batch has its turn, those that have ended leave, and new ones join. So nobody waits for
somebody else's long answer, and base and tuned model seem to speak at the same time.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.evaluation.generation import keep_head_whole, left_padded
from finetuning.out_of_memory import is_out_of_memory

TURN = 8  # tokens of a batch until the next one has its turn
MOST_AT_WORK, MOST_WAITING = 32, 64  # answers


class Busy(FinetuningError):
    """More questions wait for an answer than are worth waiting for."""


class Manner(NamedTuple):
    """Which side answers, and how: greedily at temperature 0, as the exam had it."""

    side: str
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """Of the drawing of tokens; rows with one of their own are not drawn together with others."""


@dataclass(eq=False)
class Row:
    """An answer on its way.

    `put` is told of each new token, and says whether the answer is complete. `end` is told why it ended: stop, length,
    left or an error.
    """

    prompt_ids: list[int]
    limit: int
    manner: Manner
    put: Callable[[int], bool]
    end: Callable[[str | Exception], None]
    left: threading.Event = field(default_factory=threading.Event)
    """Set by whoever does not wait for the answer any more."""
    written: int = 0


class UntilTurnEnds(StoppingCriteria):
    """Tells each row of its new token, and ends the call of `generate` when a row has ended."""

    def __init__(self, rows: list[Row], stop: int) -> None:
        self.rows, self.stop = rows, stop
        self.ended: dict[int, str | Exception] = {}

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Booleans (rows,): all the same."""
        for i, (row, token) in enumerate(zip(self.rows, input_ids[:, -1].tolist(), strict=True)):
            if reason := self._told(row, token):
                self.ended[i] = reason
        return torch.full((len(self.rows),), bool(self.ended), device=input_ids.device)

    def _told(self, row: Row, token: int) -> str | Exception | None:
        row.written += 1
        if row.left.is_set():
            return "left"
        if token == self.stop:
            return "stop"
        try:
            if row.put(token):
                return "stop"
        except Exception as error:  # of one answer alone
            return error
        return "length" if row.written == row.limit else None


class Batch:
    """Rows that are answered together: their tokens and mask (rows, tokens), and what the model keeps of them."""

    def __init__(self, rows: list[Row], pad: int, device: Any) -> None:
        self.rows, self.pad = rows, pad
        self.ids, self.mask = left_padded([row.prompt_ids for row in rows], pad, device)
        self.cache: Any = None
        self.manner = rows[0].manner
        self.drawing: torch.Tensor | None = None

    def advance(self, model: Any, stop: int) -> None:
        """Write up to `TURN` tokens of each answer, and end those that are complete."""
        criteria = UntilTurnEnds(self.rows, stop)
        sampling = {"do_sample": False}
        if self.manner.temperature:
            sampling = {"do_sample": True, "temperature": self.manner.temperature, "top_p": self.manner.top_p}
            sampling["top_k"] = 0
        with self._drawing():
            output = model.generate(
                input_ids=self.ids,
                attention_mask=self.mask,
                past_key_values=self.cache,
                max_new_tokens=TURN,
                eos_token_id=stop,
                pad_token_id=stop,
                stopping_criteria=StoppingCriteriaList([criteria]),
                return_dict_in_generate=True,
                **sampling,
            )
        self.ids, self.cache = output.sequences, output.past_key_values
        self.mask = torch.nn.functional.pad(self.mask, (0, self.ids.shape[1] - self.mask.shape[1]), value=1)
        if criteria.ended:
            self._leave(criteria.ended)

    def _leave(self, ended: dict[int, str | Exception]) -> None:
        for i, reason in ended.items():
            self.rows[i].end(reason)
        stay = [i for i in range(len(self.rows)) if i not in ended]
        self.rows[:] = [self.rows[i] for i in stay]
        if stay:
            index = torch.tensor(stay, device=self.ids.device)
            self.ids, self.mask = self.ids[index], self.mask[index]
            self.cache.reorder_cache(index)
            self._narrow()

    def _narrow(self) -> None:
        """Drop the columns that are padding in each row: they would add up for as long as rows join and leave."""
        cut, layers = int(self.mask.any(0).int().argmax()), layers_of(self.cache)
        # The model keeps all tokens but the last one, which it has not read yet.
        kept = self.ids.shape[1] - 1
        if not cut or not all(type(layer) is DynamicLayer and layer.get_seq_length() == kept for layer in layers):
            return
        self.ids, self.mask = self.ids[:, cut:], self.mask[:, cut:]
        for layer in layers:
            layer.keys, layer.values = layer.keys[..., cut:, :], layer.values[..., cut:, :]

    def takes(self, other: "Batch") -> bool:
        """Whether both are asked in the same manner, and what the model keeps of them can be put together."""
        plain = all(type(layer) is DynamicLayer for batch in (self, other) for layer in layers_of(batch.cache))
        same = self.manner == other.manner and self.manner.seed is None
        return same and plain and bool(layers_of(self.cache)) and bool(layers_of(other.cache))

    def take(self, other: "Batch") -> None:
        """Add the rows of `other`, which is used up by that."""
        width = max(self.ids.shape[1], other.ids.shape[1])
        self.rows += other.rows
        for name, fill in (("ids", self.pad), ("mask", 0)):
            parts = [getattr(batch, name) for batch in (self, other)]
            padded = [torch.nn.functional.pad(part, (width - part.shape[1], 0), value=fill) for part in parts]
            setattr(self, name, torch.cat(padded))
        for mine, theirs in zip(layers_of(self.cache), layers_of(other.cache), strict=True):
            for name in ("keys", "values"):
                parts = [getattr(layer, name) for layer in (mine, theirs)]
                long = max(part.shape[-2] for part in parts)
                padded = [torch.nn.functional.pad(part, (0, 0, long - part.shape[-2], 0)) for part in parts]
                setattr(mine, name, torch.cat(padded))

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Draw tokens from where the last turn of this batch left off, whatever others drew meanwhile."""
        if not self.manner.temperature:
            yield
            return
        devices = [self.ids.device] if self.ids.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            if self.drawing is not None:
                _set_state(self.drawing, self.ids.device)
            elif self.manner.seed is not None:
                torch.manual_seed(self.manner.seed)
            else:
                torch.seed()
            yield
            self.drawing = _state(self.ids.device)


def layers_of(cache: Any) -> list[Any]:
    """What the model keeps of each layer, where that is of the kind that grows."""
    return list(cache.layers) if isinstance(cache, DynamicCache) else []


def _state(device: Any) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(state: torch.Tensor, device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


class Engine:
    """A thread that answers rows; the model belongs to it alone."""

    def __init__(self, model: Any, using: Callable[[str], Any], tokenizer: PreTrainedTokenizerBase, stop: int) -> None:
        """Start the thread.

        Args:
            using: what makes the model speak as one of its sides, as a context.
        """
        self._model, self._using, self._stop = model, using, stop
        pad: Any = tokenizer.pad_token_id
        self._pad = stop if pad is None else pad
        self._waiting: list[Row] = []
        self._changed = threading.Condition()
        self._closed = False
        self._batches: list[Batch] = []
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def ask(self, row: Row) -> None:
        """Have the row answered.

        Raises:
            Busy: too many wait already.
        """
        with self._changed:
            if self._closed:
                raise Busy("the assistant is being ended")
            gone = [waiting for waiting in self._waiting if waiting.left.is_set()]
            self._waiting = [waiting for waiting in self._waiting if not waiting.left.is_set()]
            for waiting in gone:
                waiting.end("left")
            if len(self._waiting) >= MOST_WAITING:
                raise Busy(f"{MOST_WAITING} questions wait for an answer already: ask again in a moment")
            self._waiting.append(row)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; rows that are not answered yet are told so."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def at_work(self) -> int:
        """How many answers are being written or wait."""
        return len(self._waiting) + sum(len(batch.rows) for batch in self._batches)

    def _run(self) -> None:
        with keep_head_whole(self._model), torch.inference_mode():
            while self._admit():
                for batch in list(self._batches):
                    self._advance(batch)
                self._batches = [batch for batch in self._batches if batch.rows]
                self._join()
        for row in [*self._waiting, *(row for batch in self._batches for row in batch.rows)]:
            row.end(Busy("the assistant was ended"))

    def _admit(self) -> bool:
        """Make batches of those that wait, as far as there is room; whether to go on."""
        with self._changed:
            while not (self._waiting or self._batches or self._closed):
                self._changed.wait()
            if self._closed:
                return False
            room = MOST_AT_WORK - sum(len(batch.rows) for batch in self._batches)
            new, self._waiting = self._waiting[:room], self._waiting[room:]
        by_manner: dict[object, list[Row]] = {}
        for row in new:
            if row.left.is_set():
                row.end("left")
                continue
            alone = row.manner.seed is not None and row.manner.temperature > 0
            by_manner.setdefault(row if alone else row.manner, []).append(row)
        for rows in by_manner.values():
            with self._ending(rows):
                self._batches.append(Batch(list(rows), self._pad, self._model.device))
        return True

    def _advance(self, batch: Batch) -> None:
        with self._ending(batch.rows), self._using(batch.manner.side):
            batch.advance(self._model, self._stop)

    @contextmanager
    def _ending(self, rows: list[Row]) -> Iterator[None]:
        """End the rows, and take them out of the list, where the block fails: the others go on."""
        try:
            yield
        except Exception as error:
            reason: Exception = error
            if is_out_of_memory(error):
                reason = InfrastructureError(f"memory ran out with {len(rows)} answers at once: {error}")
            ended = list(rows)
            rows.clear()
            for row in ended:
                row.end(reason)

    def _join(self) -> None:
        """Put batches together that go through the model alike."""
        joined: list[Batch] = []
        for batch in self._batches:
            into = next((other for other in joined if other.takes(batch)), None)
            if into is None:
                joined.append(batch)
                continue
            both = [*into.rows, *batch.rows]
            with self._ending(both):
                into.take(batch)
            if not both:
                joined.remove(into)
        self._batches = joined
