"""Whether a tuned model may be published, by the rules of its recipe and the numbers of its report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from finetuning.errors import GateError
from finetuning.evaluation.report import BenchmarkFigures, Figures, Gain, Published, Report, Verdict
from finetuning.recipe.evaluation import EvaluationSpec, GateSpec

NOTHING_PROVED = "smoke run: nothing is proved; few rows, few steps, and no rule holds"


def judge(
    spec: EvaluationSpec,
    metrics: Mapping[str, Figures],
    benchmarks: Mapping[str, BenchmarkFigures] | None = None,
    published: Published | None = None,
) -> Verdict:
    """Judge by the recipe's rules; the verdict has a reason for each, with the number and how far it missed.

    Where the recipe sets no gate, the main metric has to be better than the base's beyond its 95 % interval, and the
    stop rate not worse beyond its own. With one or without, no benchmark may fall by more than the recipe allows.

    Args:
        published: how the model compares with the version that is published now.
    """
    if not spec.gate:
        outcomes = [better_beyond_noise(spec.metrics[0], metrics[spec.metrics[0]])]
        if spec.metrics[0] != "stop-rate":
            outcomes.append(not_worse_beyond_noise("stop-rate", metrics["stop-rate"]))
    else:
        outcomes = [outcome for name, gate in spec.gate.items() for outcome in gate_outcomes(name, gate, metrics[name])]
    outcomes += [kept_its_figure(name, found, spec.max_benchmark_fall) for name, found in (benchmarks or {}).items()]
    if published:
        outcomes.append(beside_published(spec.metrics[0], published))
    return Verdict(passed=all(passed for passed, _ in outcomes), reasons=tuple(reason for _, reason in outcomes))


def of_smoke_run(verdict: Verdict) -> Verdict:
    """Return the verdict on an adapter that a smoke run made: what the rules say is shown, and none of it holds."""
    return Verdict(passed=False, smoke=True, reasons=(NOTHING_PROVED, *verdict.reasons))


def verdict_in_words(verdict: Verdict) -> Literal["passed", "failed", "smoke run"]:
    """Return the verdict in a word or two."""
    return "smoke run" if verdict.smoke else "passed" if verdict.passed else "failed"


def change_of(found: Gain) -> Literal["better", "worse", "noise"]:
    """What a metric's gain is: noise where its 95 % interval has zero in it."""
    low, high = found.interval
    if low <= 0 <= high:
        return "noise"
    return "better" if (low > 0) == found.higher_is_better else "worse"


def gate_outcomes(name: str, gate: GateSpec, found: Figures) -> list[tuple[bool, str]]:
    """Whether each limit of one metric's gate is kept, in words."""
    sign = 1 if found.higher_is_better else -1
    outcomes = [limit(f"gain in {name}" if sign == 1 else f"fall of {name}", sign * found.gain, gate.min_gain)]
    if gate.min_score is not None:
        outcomes.append(limit(f"{name} of the tuned model", found.tuned, gate.min_score))
    if gate.max_score is not None:
        outcomes.append(limit(f"{name} of the tuned model", found.tuned, gate.max_score, most=True))
    return outcomes


def limit(what: str, value: float, bound: float, most: bool = False) -> tuple[bool, str]:
    """Whether `value` is at least (or at most) `bound`, and a sentence that says so."""
    passed = value <= bound if most else value >= bound
    verb = "keeps to" if most else "reaches"
    verb = verb if passed else f"misses by {abs(bound - value):.3f}"
    return passed, f"{what} is {value:.3f}, which {verb} the {bound:.3f} that the gate asks for"


def better_beyond_noise(name: str, found: Gain) -> tuple[bool, str]:
    """Whether the whole 95 % interval of the gain lies on the better side of zero."""
    passed, (low, high) = change_of(found) == "better", found.interval
    missed = "" if passed else f", which misses by {abs(low if found.higher_is_better else high):.3f}"
    verdict = "better than the base beyond its noise" if passed else "not better than the base beyond its noise"
    return passed, f"{name} is {verdict}: gain {found.gain:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}{missed}"


def beside_published(name: str, published: Published) -> tuple[bool, str]:
    """Whether the main metric is not worse than that of the version that is published now, if they were compared."""
    if published.metrics is None:
        return True, f"not compared with the version that is published now: {published.why}"
    return not_worse_beyond_noise(name, published.metrics[name], "that of the version that is published now")


def not_worse_beyond_noise(name: str, found: Gain, other: str = "the base's") -> tuple[bool, str]:
    """Whether zero, or the better side of it, is in the 95 % interval of the gain."""
    passed, (low, high) = change_of(found) != "worse", found.interval
    missed = "" if passed else f", which misses by {abs(high if found.higher_is_better else low):.3f}"
    verdict = f"{'not ' if passed else ''}worse than {other} beyond its noise"
    return passed, f"{name} is {verdict}: gain {found.gain:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}{missed}"


def kept_its_figure(name: str, found: BenchmarkFigures, allowed: float) -> tuple[bool, str]:
    """Whether a benchmark's figure is no worse than the base's by more than `allowed`.

    That is in points of a share, and of a figure above 1, such as a perplexity, a share of the base's figure.
    """
    worse = -found.gain if found.higher_is_better else found.gain
    bound = allowed * max(1.0, abs(found.base))
    figures = f"{found.metric} {found.base:.3f} before, {found.tuned:.3f} after"
    passed = worse <= bound
    limit = f"{'within' if passed else 'more than'} the {bound:.3f} that evaluation.max_benchmark_fall allows"
    return passed, f"{name} {f'fell by {worse:.3f}, {limit}' if worse > 0 else 'did not fall'} ({figures})"


def read_report(folder: Path) -> Report:
    """Read the report that lies in a folder.

    Raises:
        FinetuningError: another release wrote it, or it was changed.
    """
    path = folder / "report.json"
    return Report.of(json.loads(path.read_text()), str(path))


def require_verdict(report_folder: Path, adapter: str, where: str, smoke: bool = False) -> Report:
    """Return the report in `report_folder`, which holds a passed verdict on the adapter with this fingerprint.

    Args:
        smoke: whether this is a smoke run, whose own report says that nothing is proved, and which takes no other.

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
    if report.verdict.smoke != smoke:
        made, asked = ("a real run", "a smoke run") if smoke else ("a smoke run", "none")
        raise GateError(
            f"{where}: not published: the report in {path} is of {made}, and this is {asked} (FINETUNING_SMOKE). "
            f"Materialize {where} again, from the data on."
        )
    if not report.verdict.passed and not smoke:
        reasons = "; ".join(report.verdict.reasons)
        raise GateError(
            f"{where}: not published: adapter {adapter} failed its gate: {reasons}. Adapter and report stay where they "
            f"are ({report_folder / 'report.md'}). Change the recipe's training or data; the gate is evaluation.gate."
        )
    return report
