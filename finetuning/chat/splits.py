"""Decides what becomes of each conversation: train, eval, dev or none, so that no question is in two of them."""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from finetuning.checks.near_duplicates import Pairs, clusters
from finetuning.recipe.dataset import DatasetSpec, sources


class Fate(IntEnum):
    """What becomes of a conversation; after the first three, why it is in no split."""

    TRAIN = 0
    EVAL = 1
    DEV = 2
    DUPLICATE = 3
    NEAR_DUPLICATE = 4
    OVERLAP = 5
    NEAR_OVERLAP = 6
    EXAMINED = 7
    """Feedback on a question in eval or dev: people may ask what they like, so that it is no fault of the data."""


KEPT = (Fate.TRAIN, Fate.EVAL, Fate.DEV)  # the lowest numbers: `fate <= KEPT[-1]`
HELD_OUT = (Fate.EVAL, Fate.DEV)


@dataclass
class Index:
    """What the split needs to know of all conversations together: 17 bytes each, in lists of arrays."""

    is_eval: list[np.ndarray] = field(default_factory=list)
    """Whether it comes from `dataset.eval.sources`."""
    conversation: list[np.ndarray] = field(default_factory=list)
    """A digest of all its messages."""
    question: list[np.ndarray] = field(default_factory=list)
    """A digest of what the user says in it, which depends on the data set's seed too."""
    prefixes: list[np.ndarray] = field(default_factory=list)
    """Of the answers before the last one: the conversation's number, and the digest of what was asked until then."""
    asked: list[np.ndarray] = field(default_factory=list)
    """Of each question in it: its number, a digest of that question by itself, and whether it is the last; collected
    only where there is feedback."""
    source: list[np.ndarray] = field(default_factory=list)
    """The number of its source among all of the recipe."""
    answer: list[np.ndarray] = field(default_factory=list)
    """The number of its last answer where that is short, as the name of a class is; 0 otherwise."""

    def joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three arrays (conversations,)."""
        kinds = (bool, np.uint64, np.uint64)
        lists = (self.is_eval, self.conversation, self.question)
        return tuple(np.concatenate([np.zeros(0, kind), *arrays]) for kind, arrays in zip(kinds, lists, strict=True))  # pyright: ignore[reportReturnType]


@dataclass
class Split:
    """The fate of each conversation, its place in its split (from 0, random), and what was found on the way.

    The arrays have a number for each conversation. `duplicate` and `near_duplicate` mark those that repeat an earlier
    one, whether or not the recipe has them dropped.
    """

    fate: np.ndarray
    position: np.ndarray
    duplicate: np.ndarray
    near_duplicate: np.ndarray
    overlap: int
    """How many conversations are, in the end, about a question of another split: none, if this code is right."""
    wanted: int = 0
    """How many conversations `eval.fraction` asks for; 0 with `eval.sources`."""
    dev_wanted: int = 0
    """How many `dev.fraction` asks for; 0 without."""
    questions: int = 0
    """How many questions there are in the conversations that are left, of which those that are equal are one."""
    groups: int = 0
    """The same, where those that are nearly equal are one as well."""


def split(index: Index, pairs: Pairs, dataset: DatasetSpec) -> Split:
    """Divide the conversations of the sources into splits with no question in common, each in random order.

    The order and the choice depend on `dataset.seed` alone. With `eval.fraction`, questions go to eval with all that
    nearly repeat them until it has that share of the rows; with `eval.sources`, a train row whose question is in eval
    is in no split. Of what is left, dev is drawn as eval is. Of feedback nothing is drawn: a row of it that asks, at
    any place, what eval or dev asks is in no split, and the others are divided as if it were not there.
    """
    is_eval, conversation, question = index.joined()
    fate = np.where(is_eval, Fate.EVAL, Fate.TRAIN).astype(np.int8)
    duplicate = _repeats(conversation, is_eval)
    near_duplicate = _near_repeats(pairs, is_eval, duplicate)
    prefixes = np.concatenate([np.zeros((0, 2), np.uint64), *index.prefixes])
    pairs = _with_prefixes(pairs, question, prefixes, is_eval)
    if dataset.dedup != "none":
        fate[duplicate] = Fate.DUPLICATE
    if dataset.dedup == "near":
        fate[near_duplicate] = Fate.NEAR_DUPLICATE
    said = _of_feedback(index, dataset)
    rows = np.flatnonzero((fate <= KEPT[-1]) & ~said)
    label = _groups(question, _without(pairs, said))
    groups, questions = len(np.unique(label[rows])), len(np.unique(question[rows]))
    wanted = 0
    if dataset.eval.fraction and len(rows):
        wanted = max(1, round(dataset.eval.fraction * len(rows)))
        fate[rows[_drawn(label[rows], question[rows], wanted)]] = Fate.EVAL
    if not dataset.eval.fraction or said.any():
        _leave_out_overlap(fate, question, pairs)
    dev_wanted = 0
    if dataset.dev:
        rows = np.flatnonzero((fate == Fate.TRAIN) & ~said)
        dev_wanted = max(1, round(dataset.dev.fraction * (len(rows) + wanted)))
        fate[rows[_drawn(label[rows], question[rows], dev_wanted)]] = Fate.DEV
        if said.any():
            _leave_out_overlap(fate, question, pairs)
    fate[said & ((fate >= Fate.OVERLAP) | _asks_of_held_out(index, fate))] = Fate.EXAMINED
    rng = np.random.default_rng(dataset.seed)
    position = np.full(len(fate), -1, np.int64)
    for side in KEPT:
        rows = np.flatnonzero(fate == side)
        position[rows] = rng.permutation(len(rows))
    overlap = _overlap(fate, question, pairs)
    return Split(fate, position, duplicate, near_duplicate, overlap, wanted, dev_wanted, questions, groups)


def _of_feedback(index: Index, dataset: DatasetSpec) -> np.ndarray:
    """Mark the conversations of `dataset.sources` that are feedback."""
    stems = sources(dataset)
    numbers = [i for i, stem in enumerate(stems) if stem.startswith("train") and stems[stem][0].feedback]
    if not numbers:
        return np.zeros(sum(map(len, index.question)), bool)
    return np.isin(np.concatenate([np.zeros(0, np.int16), *index.source]), numbers)


def _asks_of_held_out(index: Index, fate: np.ndarray) -> np.ndarray:
    """Mark the conversations in which, at any place, the last question of one in eval or dev is asked."""
    number, digest, last = np.concatenate([np.zeros((0, 3), np.uint64), *index.asked]).T
    number = number.astype(np.int64)
    examined = digest[last.astype(bool) & np.isin(fate[number], HELD_OUT)]
    marked = np.zeros(len(fate), bool)
    marked[number[np.isin(digest, examined)]] = True
    return marked


def _without(pairs: Pairs, rows: np.ndarray) -> Pairs:
    """Return the pairs of which neither is among the rows that are marked."""
    kept = ~(rows[pairs.first] | rows[pairs.second])
    return Pairs(pairs.first[kept], pairs.second[kept], pairs.same_answer[kept])


def _repeats(conversation: np.ndarray, is_eval: np.ndarray) -> np.ndarray:
    """Mark the conversations that are word for word an earlier one of the same side."""
    repeats = np.ones(len(conversation), bool)
    for side in (False, True):
        rows = np.flatnonzero(is_eval == side)
        repeats[rows[np.unique(conversation[rows], return_index=True)[1]]] = False
    return repeats


def _near_repeats(pairs: Pairs, is_eval: np.ndarray, duplicate: np.ndarray) -> np.ndarray:
    """Mark the conversations that are nearly one of the same side that is kept."""
    near = np.zeros(len(is_eval), bool)
    chosen = np.flatnonzero(pairs.same_answer & (is_eval[pairs.first] == is_eval[pairs.second]))
    for i in chosen[np.argsort(pairs.second[chosen], kind="stable")].tolist():
        first, second = pairs.first[i], pairs.second[i]
        near[second] |= not (near[first] or duplicate[first] or duplicate[second])
    return near


def _with_prefixes(pairs: Pairs, question: np.ndarray, prefixes: np.ndarray, is_eval: np.ndarray) -> Pairs:
    """Add to the pairs each conversation in which another one's question is answered on the way."""
    order = np.lexsort((~is_eval, question))
    place = np.searchsorted(question[order], prefixes[:, 1])
    found = place < len(order)
    found[found] = question[order[place[found]]] == prefixes[found, 1]
    # One conversation with that question, of eval if there is one, stands for all: they go the same way.
    asked, longer = order[place[found]], prefixes[found, 0].astype(np.int64)
    both = np.sort(np.stack([asked, longer]), axis=0)
    return Pairs(
        np.r_[pairs.first, both[0]],
        np.r_[pairs.second, both[1]],
        np.r_[pairs.same_answer, np.zeros(len(asked), bool)],
    )


def _groups(question: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return a number for each conversation, the same for all that have the same question or nearly so."""
    if not len(question):
        return np.zeros(0, np.int64)
    _, same, number = np.unique(question, return_index=True, return_inverse=True)
    # The same question is in one group, whatever is nearly like it.
    first, second = np.r_[pairs.first, same[number]], np.r_[pairs.second, np.arange(len(question))]
    return clusters(len(question), first, second)


def _drawn(label: np.ndarray, question: np.ndarray, wanted: int) -> np.ndarray:
    """Draw `wanted` conversations for eval: whole groups, in the order of their digests, which the seed mixes.

    A group that is too big for what is left to draw stays in train; the smallest one goes to eval if all are. Returned
    is whether each is drawn.
    """
    _, group = np.unique(label, return_inverse=True)
    sizes = np.bincount(group)
    first, last = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64), np.zeros(len(sizes), np.uint64)
    np.minimum.at(first, group, question)
    np.maximum.at(last, group, question)
    # The least of several digests is small: mixed once more, a group is drawn as often as a question by itself.
    order = np.where(first == last, first, _mixed(first))
    drawn, held = np.zeros(len(sizes), bool), 0
    for chosen in np.argsort(order):
        if held + sizes[chosen] <= wanted:
            drawn[chosen] = True
            held += sizes[chosen]
        if held == wanted:
            break
    if not held and len(sizes) > 1:
        drawn[sizes.argmin()] = True
    return drawn[group]


def _mixed(digests: np.ndarray) -> np.ndarray:
    """Return other digests in place of these, spread evenly wherever these are.

    Source: the finalizer of Steele et al., Fast Splittable Pseudorandom Number Generators (2014).
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        digests = (digests ^ (digests >> np.uint64(shift))) * np.uint64(factor)
    return digests ^ (digests >> np.uint64(31))


def _leave_out_overlap(fate: np.ndarray, question: np.ndarray, pairs: Pairs) -> None:
    """Take rows out of train whose question is, word for word or nearly, in eval or dev."""
    exact = (fate == Fate.TRAIN) & np.isin(question, question[np.isin(fate, HELD_OUT)])
    fate[exact] = Fate.OVERLAP
    for train, evaluation in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
        near = (fate[train] == Fate.TRAIN) & np.isin(fate[evaluation], HELD_OUT)
        fate[train[near]] = Fate.NEAR_OVERLAP
    # Not every pair is known of each row: those with the same question go the same way.
    copies = (fate == Fate.TRAIN) & np.isin(question, question[fate == Fate.NEAR_OVERLAP])
    fate[copies] = Fate.NEAR_OVERLAP


def _overlap(fate: np.ndarray, question: np.ndarray, pairs: Pairs) -> int:
    found: set[int] = set()
    sides = ((pairs.first, pairs.second), (pairs.second, pairs.first))
    for held_out in HELD_OUT:
        there, elsewhere = fate == held_out, (fate <= KEPT[-1]) & (fate != held_out)
        found |= {*np.flatnonzero(elsewhere & np.isin(question, question[there])).tolist()}
        found |= {row for one, other in sides for row in one[elsewhere[one] & there[other]].tolist()}
    return len(found)
