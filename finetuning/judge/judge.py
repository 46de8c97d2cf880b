"""Asks a judge about many pairs of answers, each in both orders, within what the recipe allows."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from finetuning.errors import FinetuningError
from finetuning.judge.asker import Asker
from finetuning.judge.endpoint import SHOWN, Endpoint
from finetuning.judge.ledger import Judgement, Ledger
from finetuning.judge.protocol import Decision, Message, Pair, choice_in, digest_of, question
from finetuning.judge.refusals import KEY, QuestionRefused
from finetuning.progress import Progress
from finetuning.recipe.judge import JudgeSpec
from finetuning.recipe.recipe import Recipe
from finetuning.settings import Settings

LETTERS = 4  # of a token, about
MOST_REFUSED = 8  # questions, before one was answered
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Judged(NamedTuple):
    """What a judge made of pairs, in their order."""

    decisions: list[Decision]
    questions: int
    """How many different ones they were, asked now or before."""
    tokens: tuple[int, int]
    """Read and written for these."""


def folder_name(asker: Asker) -> str:
    """The name of the folder with this judge's judgements."""
    return digest_of([asker.where, asker.name])[:16]


def judge_endpoint(spec: JudgeSpec, log: Callable[[str], None], first_wait: float = 1.0) -> Endpoint:
    """The endpoint that the recipe names, with the key of this machine.

    Args:
        first_wait: seconds before a second try.

    Raises:
        InfrastructureError: the key is none.
    """
    key = Settings.read("judge_key").judge_key
    found = Endpoint(spec, key, first_wait)
    address = urlsplit(found.where)
    if key and address.scheme == "http" and address.hostname not in LOOPBACK:
        log(f"evaluation.judge.endpoint: {KEY} goes to {found.where} in clear; write https:// if it can")
    return found


def require_budget(recipe: Recipe, choices: int, rows: int) -> None:
    """Check that the exam may send as many requests as it may need, if none has to be tried again.

    Args:
        choices: human ones that the judge is measured by.

    Raises:
        FinetuningError: it may not.
    """
    spec = recipe.evaluation.judge
    if spec is None:
        return
    # Both orders of every pair: of base and tuned, and of the version that is published now and tuned.
    most = 2 * (choices + rows * (1 + recipe.evaluation.no_worse_than_published))
    if most > spec.max_requests:
        raise FinetuningError(
            f"{recipe.file}: evaluation.judge.max_requests: {spec.max_requests:,}, and the exam may need {most:,}, for "
            f"both orders of every pair. Write {most:,}, or lower evaluation.rows or evaluation.judge.max_choices."
        )


class Judge:
    """A judge, with all that it was ever asked."""

    def __init__(self, spec: JudgeSpec, asker: Asker, folder: Path, progress: Progress) -> None:
        """Ask nothing yet.

        Args:
            folder: where its judgements are kept, for other exams too.
        """
        self.spec, self.asker, self._folder, self._progress = spec, asker, folder, progress

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *of: object) -> None:
        self.asker.close()

    def decide(self, pairs: Sequence[Pair], what: str) -> Judged:
        """Say what it will take, ask what was never asked, and return the decisions.

        Args:
            what: what the pairs are, for the log.

        Raises:
            FinetuningError: the judge refuses, cannot be reached, or all requests are used up. What was judged is kept.
        """
        asked = [None if pair.is_same else (question(pair, False), question(pair, True)) for pair in pairs]
        keys = [both and (self._key(both[0]), self._key(both[1])) for both in asked]
        found = {
            k: m for both, own in zip(asked, keys, strict=True) if both and own for k, m in zip(own, both, strict=True)
        }
        with Ledger(self._folder, self._progress) as ledger:
            missing = {key: messages for key, messages in found.items() if key not in ledger.known}
            self._say(what, len(pairs), len(found), missing)
            if missing:
                with self.asker.at_work():
                    self._ask(missing, ledger, what, answered=len(missing) < len(found))
            known = {key: ledger.known[key] for key in found}
        decisions = [
            Decision(known[own[0]].choice, known[own[1]].choice) if own else Decision("tie", "tie", is_same=True)
            for own in keys
        ]
        read, written = (sum(one.tokens[side] for one in known.values()) for side in (0, 1))
        return Judged(decisions, len(found), (read, written))

    def _key(self, messages: list[Message]) -> str:
        """What stands for a question in the ledger: all that the reply depends on."""
        return digest_of([messages, self.spec.name, self.spec.max_tokens, self.spec.temperature])

    def _say(self, what: str, pairs: int, questions: int, missing: Mapping[str, list[Message]]) -> None:
        """Log what will be asked, and what that costs at most, before it is."""
        letters = sum(len(message["content"]) for messages in missing.values() for message in messages)
        left = self.spec.max_requests - self.asker.sent
        self._progress.log(
            f"judge {self.asker.name} at {self.asker.where}: {what}: {pairs:,} pairs, {questions:,} questions, "
            f"{questions - len(missing):,} of them asked before. Now {len(missing):,} requests (of {left:,} that are "
            f"left, for tries again too), about {letters // LETTERS:,} tokens to read and at most "
            f"{len(missing) * self.spec.max_tokens:,} to write"
        )

    def _ask(self, missing: Mapping[str, list[Message]], ledger: Ledger, what: str, answered: bool) -> None:
        """Ask several questions at once, and keep each reply as it comes.

        After the first failure no more are asked, and what is under way is kept. A question that is refused while
        others are not is kept as one that has no choice.

        Args:
            answered: whether any was answered before.
        """
        failure, refused = None, dict[str, QuestionRefused]()
        with closing(_Threads(self.spec.parallel)) as threads:
            waiting = {threads.submit(self._pay, ledger, *one): one[0] for one in missing.items()}
            for number, future in enumerate(as_completed(waiting), start=1):
                error = None if future.cancelled() else future.exception()
                if isinstance(error, QuestionRefused):
                    refused[waiting[future]] = error
                    error = error if not answered and len(refused) == MOST_REFUSED else None
                elif error is None and not future.cancelled():
                    answered = True
                    self._progress.update(f"judge: {what}: {number:,}/{len(missing):,} questions asked")
                if error:
                    failure = failure or error
                    for other in waiting:
                        other.cancel()
        if refused and not answered:
            failure = failure or next(iter(refused.values()))
        if failure:
            raise failure
        for key, error in refused.items():
            ledger.keep(Judgement(asked=key, choice="unclear", tokens=(0, 0), reply=error.said))

    def _pay(self, ledger: Ledger, key: str, messages: list[Message]) -> None:
        """Ask one question, and keep the reply before this thread asks the next one."""
        reply = self.asker.ask(messages)
        choice = choice_in(reply.text)
        said = self.asker.without_key(reply.text)[:SHOWN] if choice == "unclear" else ""
        ledger.keep(Judgement(asked=key, choice=choice, tokens=reply.tokens, reply=said))


class _Threads(ThreadPoolExecutor):
    """Threads that begin nothing more once they are closed."""

    def close(self) -> None:
        """Wait for what has begun, and leave the rest."""
        self.shutdown(cancel_futures=True)
