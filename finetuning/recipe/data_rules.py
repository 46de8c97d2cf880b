"""Rules about the rows that are learned and examined: what does not go with documents, a format or a method."""

from collections.abc import Iterator, Mapping
from typing import Any

from finetuning.recipe.columns import OF_KNOWLEDGE
from finetuning.recipe.mistakes import KeyPath
from finetuning.recipe.spec import listed

# What the methods that compare the model with what it was learn from: the format, and what it has that others lack.
ANSWERS = {"dpo": ("preference", "rejected answers"), "kto": ("unpaired-preference", "judgements of answers")}
# Metrics that compare answers with passages and without, from 0 to 1, more for the better.
OF_PASSAGES = ("final-answer", "exact-match", "contains", "rouge-l", "chrf")


def knowledge_rules(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What does not go with `knowledge`, and what goes with nothing else."""
    dataset, method = section_of(data, "dataset"), section_of(data, "training").get("method", "sft")
    if data.get("knowledge") is None:
        if data.get("context") is not None:
            yield ("context",), "would be ignored: there is no knowledge to take passages from; leave it out"
        for place, source in _placed(dataset):
            columns = source.get("columns")
            strange = [name for name in OF_KNOWLEDGE if isinstance(columns, Mapping) and name in columns]
            if strange:
                yield (*place, "columns"), f"{strange[0]} is read where there is `knowledge` alone; leave it out"
        return
    if "context" in data and data["context"] is None:
        yield ("context",), "null, so that no passage would ever be shown; leave it out, or knowledge"
    if method not in ("sft", "grpo"):
        yield ("knowledge",), f"with training.method: {method}, which learns no passages; write sft, or grpo"
    metrics = section_of(data, "evaluation").get("metrics")
    named = metrics if isinstance(metrics, list) else []
    if "python-tests" in named or (named and named[0] not in OF_PASSAGES):
        yield (
            ("evaluation", "metrics"),
            f"{listed(map(str, named))} with knowledge, where the first metric compares answers with passages and "
            f"without: write one of {listed(OF_PASSAGES)} first, and no python-tests, which would run citations too",
        )
    if not sources_in(section_of(dataset, "eval")):
        yield (
            ("dataset", "eval"),
            "a share of the rows would ask about documents that are learned about too; write eval: {sources: […]} with "
            "rows about other documents",
        )


def format_rules(dataset: Mapping[str, Any], training: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What does not go with the format of a source."""
    for place, source in _placed(dataset):
        format = source.get("format")
        method = training.get("method", "sft")
        if format == "unpaired-preference" and method in ("sft", "grpo"):
            what = "learn the answers that were judged bad too" if method == "sft" else "reward what was judged bad"
            yield (
                (*place, "format"),
                f"unpaired-preference with training.method: {method}, which would {what}; write method: kto",
            )
        if format == "text" and method == "grpo":
            yield (
                (*place, "format"),
                "text with training.method: grpo, which rewards answers to questions; write method: sft",
            )
        if format == "text" and source.get("system"):
            yield (*place, "system"), "would be ignored: text has no turns and no chat template; leave it out"


def answer_rules(dataset: Mapping[str, Any], method: str) -> Iterator[tuple[KeyPath, str]]:
    format, what = ANSWERS[method]
    for place, source in _placed(dataset):
        if source.get("format") not in (None, format):
            other = next((name for name, (own, _) in ANSWERS.items() if own == source["format"]), "sft")
            if method == "kto" and source["format"] in ("messages", "sharegpt"):
                advice = f"{format} (its rows may be conversations with a label)"
            else:
                advice = format
            yield (
                (*place, "format"),
                f"{source['format']} has no {what}, and training.method: {method} needs them; write {advice}, or "
                f"method: {other}",
            )


def overlap_rules(dataset: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    trained = [_origin(source) for source in sources_in(dataset)]
    for index, source in enumerate(sources_in(section_of(dataset, "eval"))):
        if source.get("feedback") is not None:
            yield (
                ("dataset", "eval", "sources", index, "feedback"),
                "what people say of answers may be learned, and decides no exam; write files or hub",
            )
            continue
        if any(_origin(source)[:4]) and _origin(source) in trained:
            yield (
                ("dataset", "eval", "sources", index),
                f"the same rows as dataset.sources[{trained.index(_origin(source))}], so the model would be tested on "
                "what it learned; name another split, or write eval: {fraction: 0.05}",
            )


def _origin(source: Mapping[str, Any]) -> list[Any]:
    return [source.get(key) for key in ("hub", "files", "feedback", "generator", "config")] + [
        source.get("split", "train")
    ]


def _placed(dataset: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Every source with its place."""
    for section, path in ((dataset, ("dataset",)), (section_of(dataset, "eval"), ("dataset", "eval"))):
        for index, source in enumerate(sources_in(section)):
            yield (*path, "sources", index), source


def sources_in(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sources = data.get("sources")
    return [source if isinstance(source, Mapping) else {} for source in sources] if isinstance(sources, list) else []


def section_of(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = data.get(name)
    return section if isinstance(section, Mapping) else {}
