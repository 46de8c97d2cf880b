"""Whether a tuned model may be published, by the rules of its recipe and the numbers of its report."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from finetuning.errors import GateError
from finetuning.evaluation.intervals import least_rows, widened
from finetuning.evaluation.report import BenchmarkFigures, Figures, Gain, Published, Report, Verdict
from finetuning.recipe.evaluation import OF_ANSWERS, EvaluationSpec, GateSpec, with_implied

ROUNDING = 1e-9
NOTHING_PROVED = "smoke run: nothing is proved; few rows, few steps, and no rule holds"


class Family(NamedTuple):
    """Rules that a model must not be worse, all of which together are to fail a good one in at most 2.5 % of exams."""

    rules: int
    rows: int
    """How many the intervals are of."""

    def widened(self, found: Gain) -> tuple[float, float]:
        """The interval of the improvement, for one of the rules."""
        return widened(found.improvement_interval, self.rules, self.rows)

    def too_few(self, allowed: float = 0.0) -> str | None:
        """Why so few rows prove nothing: not even a loss of all of them would be beyond `allowed`; None for enough."""
        least, by = least_rows(self.rules, allowed), f" by each of {self.rules} rules" if self.rules > 1 else ""
        if self.rows >= least:
            return None
        return f"with fewer than {least} not even all answers wrong after all right could be told from chance{by}"

    def in_words(self) -> str:
        """How many rules the interval is for, where there are several."""
        return f" (one of {self.rules} rules)" if self.rules > 1 else ""


def judge(
    spec: EvaluationSpec,
    rows: int,
    metrics: Mapping[str, Figures],
    benchmarks: Mapping[str, BenchmarkFigures] | None = None,
    published: Published | None = None,
    with_passages: bool = False,
) -> Verdict:
    """Judge by the recipe's rules; the verdict has a reason for each, with the number and how far it missed.

    Where the recipe sets no gate, the main metric has to be better than the base's beyond its 95 % interval, and no
    other one worse. With one or without, the share of empty answers may not rise beyond noise nor be all of them, no
    benchmark fall by more than the recipe allows, and the published version not be better. The metrics that read
    answers may not be worse either, unless the gate names one of them that is not 0; and they cannot all be 0.

    A model that gained nothing in the main metric passes in at most 2.5 % of exams, and one that is in nothing worse
    fails a rule that it must not be worse, or a benchmark, in at most 2.5 %, however many of these there are: each of
    them takes a wider interval.

    Args:
        rows: how many of them were answered.
        published: how the model compares with the version that is published now.
        with_passages: whether both were asked with passages, so that the base's figure is what retrieval alone comes
            to; whatever the gate says, the tuned model has to be better than that.
    """
    main = spec.metrics[0]
    kept = [name for name in metrics if name != main] if not spec.gate else kept_beside(spec.gate, metrics)
    family = Family(len(kept) + bool(published and published.metrics) + len(benchmarks or {}), rows)
    outcomes = too_few(family)
    if spec.gate:
        outcomes += [found for name, gate in spec.gate.items() for found in gate_outcomes(name, gate, metrics[name])]
    else:
        outcomes.append(better_beyond_noise(main, metrics[main]))
    if with_passages:
        outcomes.append(better_than_retrieval(main, metrics[main]))
    outcomes += [not_worse_beyond_noise(name, metrics[name], family) for name in kept]
    outcomes += [*tells_nothing(spec.gate, metrics), *says_nothing(spec.gate, metrics)]
    for name, found in (benchmarks or {}).items():
        outcomes.append(kept_its_figure(name, found, spec.max_benchmark_fall, family._replace(rows=found.rows)))
    if published:
        outcomes.append(beside_published(main, published, family))
    return Verdict(passed=all(passed for passed, _ in outcomes), reasons=tuple(reason for _, reason in outcomes))


def most_rules(spec: EvaluationSpec) -> int:
    """How many rules that a model must not be worse the verdict may have, whatever the exam finds."""
    reported = with_implied(spec.metrics)
    # Where no metric of the gate tells of answers.
    told = {"chrf", "empty", *(name for name in reported if name in OF_ANSWERS)}
    kept = told - set(spec.gate) if spec.gate else reported[1:]
    return len(kept) + spec.no_worse_than_published + len(spec.benchmarks)


def better_than_retrieval(name: str, found: Gain) -> tuple[bool, str]:
    """Whether training added anything to what passages alone do, in words."""
    better = change_of(found) == "better"
    what = f"training {'adds to' if better else 'adds nothing that shows to'} what the base model makes of passages"
    return better, f"{what}{'' if better else ': retrieval alone is as good'} ({name})"


def kept_beside(gate: Mapping[str, GateSpec], metrics: Mapping[str, Figures]) -> list[str]:
    """The metrics beside those of a gate that must not be worse: of answers, where it names none that tells of them."""
    tells = any(metrics[name].tuned > 0 for name in gate if name in OF_ANSWERS)
    of_answers = [] if tells else [name for name in metrics if name in OF_ANSWERS]
    return [name for name in (*of_answers, "empty") if name not in gate]


def tells_nothing(gate: Mapping[str, GateSpec], metrics: Mapping[str, Figures]) -> list[tuple[bool, str]]:
    """A rule that is not kept, where all metrics that read answers are 0 for the tuned model; if no gate lets them."""
    read = [name for name in metrics if name in OF_ANSWERS]
    if any(name in gate and gate[name].min_gain <= -1 for name in read):
        return []
    if not read or any(metrics[name].tuned for name in read):
        return []
    told = "which tells nothing of what answers say: name another metric"
    return [(False, f"{', '.join(read)} is 0 for the tuned model, {told}")]


def says_nothing(gate: Mapping[str, GateSpec], metrics: Mapping[str, Figures]) -> list[tuple[bool, str]]:
    """A rule that is not kept, where all answers of the tuned model are empty, as the base's may be; if no gate is."""
    if "empty" in gate or "empty" not in metrics or metrics["empty"].tuned < 1:
        return []
    return [(False, "all answers of the tuned model are empty, however many of the base's are")]


def of_smoke_run(verdict: Verdict) -> Verdict:
    """Return the verdict on an adapter that a smoke run made: what the rules say is shown, and none of it holds."""
    return Verdict(passed=False, smoke=True, reasons=(NOTHING_PROVED, *verdict.reasons))


def verdict_in_words(verdict: Verdict) -> Literal["passed", "failed", "smoke run"]:
    """Return the verdict in a word or two."""
    return "smoke run" if verdict.smoke else "passed" if verdict.passed else "failed"


def change_of(found: Gain) -> Literal["better", "worse", "noise"]:
    """What a metric's gain is: noise where its 95 % interval has zero in it, or is no interval of numbers."""
    return side_of_zero(found.improvement_interval)


def side_of_zero(improvement: tuple[float, float]) -> Literal["better", "worse", "noise"]:
    """Where the whole of an interval lies."""
    low, high = improvement
    return "better" if low > 0 and high > 0 else "worse" if low < 0 and high < 0 else "noise"


def too_few(family: Family) -> list[tuple[bool, str]]:
    """A rule that is not kept, where no gain and no loss could show."""
    why = family.too_few()
    return (
        [(False, f"{family.rows} eval rows prove nothing: {why}. Raise evaluation.rows or dataset.eval")] if why else []
    )


def gate_outcomes(name: str, gate: GateSpec, found: Figures) -> list[tuple[bool, str]]:
    """Whether each limit of one metric's gate is kept, in words."""
    outcomes = [
        limit(f"gain in {name}" if found.higher_is_better else f"fall of {name}", found.improvement, gate.min_gain)
    ]
    if gate.min_score is not None:
        outcomes.append(limit(f"{name} of the tuned model", found.tuned, gate.min_score))
    if gate.max_score is not None:
        outcomes.append(limit(f"{name} of the tuned model", found.tuned, gate.max_score, most=True))
    return outcomes


def limit(what: str, value: float, bound: float, most: bool = False) -> tuple[bool, str]:
    """Whether `value` is at least (or at most) `bound`, and a sentence that says so."""
    if not math.isfinite(value):
        return False, f"{what} is no number: {value}"
    passed = value <= bound if most else value >= bound
    verb = "keeps to" if most else "reaches"
    verb = verb if passed else f"misses by {abs(bound - value):.3f}"
    return passed, f"{what} is {value:.3f}, which {verb} the {bound:.3f} that the gate asks for"


def better_beyond_noise(name: str, found: Gain) -> tuple[bool, str]:
    """Whether the whole 95 % interval of the gain lies on the better side of zero."""
    if not is_number(found):
        return no_number(name, found)
    passed, (low, high) = change_of(found) == "better", found.improvement_interval
    missed = "" if passed else f", which misses by {abs(low):.3f}"
    verdict = "better than the base beyond its noise" if passed else "not better than the base beyond its noise"
    return (
        passed,
        f"{name} is {verdict}: gain {found.improvement:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}{missed}",
    )


def beside_published(name: str, published: Published, family: Family) -> tuple[bool, str]:
    """Whether the main metric is not worse than that of the version that is published now, if they were compared."""
    if published.metrics is None:
        return True, f"not compared with the version that is published now: {published.why}"
    return not_worse_beyond_noise(name, published.metrics[name], family, "that of the version that is published now")


def not_worse_beyond_noise(name: str, found: Gain, family: Family, other: str = "the base's") -> tuple[bool, str]:
    """Whether zero, or the better side of it, is in the interval of the gain, widened for so many rules."""
    if not is_number(found):
        return no_number(name, found)
    low, high = family.widened(found)
    passed = side_of_zero((low, high)) != "worse"
    missed = "" if passed else f", which misses by {abs(high):.3f}"
    verdict = f"{'not ' if passed else ''}worse than {other} beyond its noise"
    interval = f"interval {low:+.3f} to {high:+.3f}{family.in_words()}"
    return passed, f"{name} is {verdict}: gain {found.improvement:+.3f}, {interval}{missed}"


def is_number(found: Gain) -> bool:
    """Whether the figure, the gain and its interval are finite numbers."""
    return all(map(math.isfinite, (found.tuned, found.gain, *found.interval)))


def no_number(name: str, found: Gain) -> tuple[bool, str]:
    """A rule that is not kept: there is nothing to compare."""
    low, high = found.interval
    return False, f"{name} is no number: {found.tuned:.3f}, gain {found.gain:+.3f}, interval {low:+.3f} to {high:+.3f}"


def kept_its_figure(name: str, found: BenchmarkFigures, allowed: float, family: Family) -> tuple[bool, str]:
    """Whether a benchmark's figure may be no worse than the base's by more than `allowed`, by its widened interval.

    That is in points of a share, and of a figure above 1, such as a perplexity, a share of the base's figure.
    """
    if not is_number(found):
        return no_number(name, found)
    if why := family.too_few(allowed):
        return (
            False,
            f"{name}: {found.rows} rows prove nothing: {why}. Raise evaluation.benchmark_rows, or leave it out",
        )
    worse, (low, high) = -found.improvement, family.widened(found)
    bound = allowed * max(1.0, abs(found.base))
    figures = f"{found.metric} {found.base:.3f} before, {found.tuned:.3f} after"
    passed = high >= -bound - ROUNDING
    within, beyond = ("within", "") if worse <= bound + ROUNDING else ("more than", "beyond its noise")
    beyond = f", {'not ' if passed else ''}{beyond}" if beyond else ""
    fell = f"fell by {worse:.3f}, {within} the {bound:.3f} that evaluation.max_benchmark_fall allows{beyond}"
    interval = f"gain {found.improvement:+.3f}, interval {low:+.3f} to {high:+.3f}{family.in_words()}"
    return passed, f"{name} {fell if worse > 0 else 'did not fall'} ({figures}; {interval})"


def read_report(folder: Path) -> Report:
    """Read the report that lies in a folder.

    Raises:
        FinetuningError: another release wrote it, or it was changed.
    """
    path = folder / "report.json"
    return Report.of(json.loads(path.read_text()), str(path))


def require_verdict(
    report_folder: Path,
    adapter: str,
    files: Mapping[str, str],
    where: str,
    smoke: bool = False,
    has_gate: bool = True,
) -> Report:
    """Return the report in `report_folder`, which holds a passed verdict on the adapter with this fingerprint.

    Args:
        files: the sha256 of the adapter's weights, by the file's name.
        smoke: whether this is a smoke run, whose own report says that nothing is proved, and which takes no other.
        has_gate: whether the recipe sets a gate.

    Raises:
        FinetuningError: it is about another adapter, a smoke run's in a real one or the other way round, or the verdict
            failed; nothing may be published then.
    """
    path = report_folder / "report.json"
    report = read_report(report_folder)
    if report.adapter != adapter:
        raise GateError(
            f"{where}: not published: the report in {path} is about adapter {report.adapter}, and the one to "
            f"publish is {adapter}. Materialize evaluation_report for {where}, then publish."
        )
    if report.files != files:
        raise GateError(
            f"{where}: not published: the report in {path} is about other weights of adapter {adapter}, which was "
            f"trained once more since. Materialize evaluation_report for {where}, then publish."
        )
    if report.verdict.smoke != smoke:
        made, asked = ("a real run", "a smoke run") if smoke else ("a smoke run", "none")
        raise GateError(
            f"{where}: not published: the report in {path} is of {made}, and this is {asked} (FINETUNING_SMOKE). "
            f"Materialize {where} again, from the data on."
        )
    if not report.verdict.passed and not smoke:
        reasons = "; ".join(report.verdict.reasons)
        failed = f"not published: adapter {adapter} failed its gate: {reasons}"
        rules = "the gate is evaluation.gate"
        if not has_gate:
            failed = f"not published: adapter {adapter} failed its evaluation: {reasons}"
            rules = "these rules hold where a recipe sets no evaluation.gate"
        raise GateError(
            f"{where}: {failed}. Adapter and report stay where they are ({report_folder / 'report.md'}). Change the "
            f"recipe's training or data; {rules}."
        )
    return report
