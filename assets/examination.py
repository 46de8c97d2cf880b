"""The exam of one adapter: who answers, and which answers are there already, as artifacts beside the report."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dagster as dg

from assets.judging import JudgingArtifacts, judge_of
from assets.lineage import Line
from finetuning.errors import FinetuningError
from finetuning.evaluation.benchmark_tasks import Benchmark, load_benchmarks, tasks_revision
from finetuning.evaluation.python_tests import CODE_RULES, require_confinement
from finetuning.evaluation.report import Answering, BenchmarkFigures, Findings, Published, Started
from finetuning.progress import Progress
from finetuning.public_names import public_path
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from finetuning.recipe.spec import Made
from resources.artifacts import Artifacts
from resources.gpu import Gpu
from resources.hub_client.connection import HubConnection
from resources.hub_client.versions import Head, download
from resources.store.plan import Plan

if TYPE_CHECKING:
    from finetuning.evaluation.benchmark_scores import BenchmarkAnswering
    from finetuning.evaluation.exam import Candidate, Exam
    from finetuning.evaluation.judged import Measured
    from finetuning.judge.judge import Judge


@dataclass(frozen=True)
class Examination:
    """What all who sit the exam have in common: recipe, the line that ends in the adapter, and machine."""

    context: dg.AssetExecutionContext
    artifacts: Artifacts
    gpu: Gpu
    recipe: Recipe
    line: Line
    folder: Path
    """Where the tuned model's answers are left."""
    judging: JudgingArtifacts | None = None
    """The model on this machine that judges, if one does."""

    def hold(self, connection: HubConnection, head: Head | None) -> Findings:
        """Return what base, tuned and published model (`head`, where there is one) came to.

        The base's answers are those that another recipe of this base left, if any.

        Raises:
            FinetuningError: the adapter, or the published one, is not whole or changes nothing, memory ran out, or the
                judge refuses or cannot be reached.
        """
        for artifact in (self.line.chat_dataset, self.line.quantized_base_model, self.line.lora_adapter):
            artifact.verify()
        if "python-tests" in self.recipe.evaluation.metrics:
            require_confinement(self.recipe.file)
        with Progress(self.context.log.info, "loading libraries") as progress, self._judge(progress) as judge:
            from finetuning.evaluation.comparison import evaluate
            from finetuning.evaluation.exam import exam_of

            exam = exam_of(
                self.recipe.evaluation, self.line.chat_dataset.path, self.recipe.base_model.trust_remote_code
            )
            benchmarks = load_benchmarks(self.recipe.evaluation, self.recipe.file)
            # Before anything is answered: what a judge refuses, it refuses now.
            measured = self._measured(judge, len(exam.questions)) if judge else None
            base = self._plan(exam, "base_answers").obtain(self._answers(exam, self._candidate("base", None), progress))
            tuned = self._answers(exam, self._candidate("tuned", self.line.lora_adapter.path), progress)(self.folder)
            asked_with = self.line.asked_with()
            found = evaluate(self.recipe.evaluation, exam, base.path, self.folder, asked_with, measured)
            published = self._beside_published(exam, connection, head, progress, measured)
            start = self._beside_start(exam, progress)
            scores = self._benchmarks(exam, benchmarks, progress) if benchmarks else {}
        asked = base.read(Answering).model_copy(update={"fingerprint": base.fingerprint})
        return replace(
            found, benchmarks=scores, answering={"base": asked, "tuned": tuned}, published=published, start=start
        )

    def _judge(self, progress: Progress) -> AbstractContextManager["Judge | None"]:
        """The recipe's judge, if it has one, with all that it was asked by exams of this store."""
        if self.recipe.evaluation.judge is None:
            return nullcontext()
        return judge_of(self.recipe, self.judging, self.artifacts, self.gpu, progress)

    def _measured(self, judge: "Judge", rows: int) -> "Measured":
        """The judge beside what people preferred, once it is known that the exam keeps to its limit of requests."""
        from finetuning.evaluation.judged import measure
        from finetuning.judge.choices import human_choices
        from finetuning.judge.judge import require_budget

        choices = human_choices(self.recipe)
        require_budget(self.recipe, len(choices), rows)
        return measure(judge, choices)

    def _candidate(self, name: str, adapter: Path | None) -> "Candidate":
        """The base model, or the one with the adapter that lies there, as this machine loads it."""
        from finetuning.evaluation.exam import Candidate

        kwargs = self.gpu.model_kwargs(self.recipe.base_model)
        mixed = self.recipe.training.bf16 or kwargs["dtype"] != "bfloat16"  # see finetuning/training/settings.py
        return Candidate(name, self.line.quantized_base_model.path, adapter, kwargs, mixed)

    def _answers(self, exam: "Exam", candidate: "Candidate", progress: Progress) -> Callable[[Path], Answering]:
        """Return a function that runs the exam for one model and writes its answers to a folder."""
        from finetuning.evaluation.exam import sit

        def answer(out: Path) -> Answering:
            with self.gpu.exclusive(self.context.log.info):
                return sit(self.recipe.evaluation, exam, candidate, progress, out)

        return answer

    def _plan(self, exam: "Exam", asset: Made, adapter: tuple[str, str] | None = None) -> Plan:
        """The artifact of a model's answers: the base's own, for all adapters that are asked the same, or an adapter's.

        Args:
            adapter: its fingerprint, and what tells its content.
        """
        from finetuning.evaluation.exam import measures_loss, runs_code

        spec = self.recipe.evaluation
        return self.artifacts.plan(
            self.context,
            sections=sections(self.recipe, asset),
            resolved={
                "chat_template": self.line.chat_dataset.resolved["chat_template"],
                "rows": exam.digest(),
                "loss": measures_loss(spec),
                "code": runs_code(spec) and CODE_RULES,
                # Answers of one kernel, or of one machine, are not compared with those of another.
                "model_kwargs": self.gpu.model_kwargs(self.recipe.base_model),
                **({"adapter": adapter[1]} if adapter else {}),
            },
            inputs=[self.line.quantized_base_model],
            beside=(asset, adapter[0] if adapter else self.line.quantized_base_model.fingerprint),
        )

    def _beside_published(
        self,
        exam: "Exam",
        connection: HubConnection,
        head: Head | None,
        progress: Progress,
        measured: "Measured | None",
    ) -> Published | None:
        """Compare with the version that is published now; None where there is none.

        A judge that carries no verdict is not asked about it.
        """
        if head is None or head.report is None:
            return None
        from finetuning.evaluation.comparison import compare_with_published
        from finetuning.evaluation.judged import without_judge

        known = Published(
            repo_id=head.repo_id,
            tag=head.tag or head.commit,
            commit=head.commit,
            adapter=head.report.adapter,
            files=head.report.files,
        )
        common = self.line.alike()
        other = [name for name, value in common.items() if head.report.alike.get(name) != value]
        if other:
            return known.model_copy(update={"why": f"it has another {' and another '.join(other)}"})

        def write(out: Path) -> Answering:
            with TemporaryDirectory() as adapter:
                download(connection, head, Path(adapter))
                return self._answers(exam, self._candidate("published", Path(adapter)), progress)(out)

        try:
            answers = self._plan(exam, "published_answers", (str(head.adapter), head.commit)).obtain(write)
        except FinetuningError as error:
            raise type(error)(
                f"{self.recipe.file}: the version that is published now ({head.repo_id} at {head.commit}) cannot be "
                f"compared with: {error} Mend it, or write evaluation.no_worse_than_published: false."
            ) from error
        judge = measured.judge if measured and measured.carries_verdict else None
        spec = self.recipe.evaluation if judge or not measured else without_judge(self.recipe.evaluation)
        asked_with = self.line.asked_with()
        compared = compare_with_published(spec, exam, answers.path, self.folder, asked_with, judge)
        return known.model_copy(update={"metrics": compared})

    def _beside_start(self, exam: "Exam", progress: Progress) -> Started | None:
        """Compare with the adapter that was rewarded further; None for other methods, and where there was none."""
        begun = self.line.lora_adapter.resolved.get("lora_from")
        if begun is None or self.recipe.training.method != "grpo":
            return None
        known = Started(source=public_path(begun["source"]), revision=begun["revision"])
        if begun["kind"] != "partition":
            return known.model_copy(update={"why": "only the adapter of a recipe is answered for once more"})
        adapter = self.artifacts.find("lora_adapter", begun["source"], begun["revision"], self.context.log.info)
        if adapter is None:
            return known.model_copy(update={"why": "it is gone"})
        from finetuning.evaluation.comparison import compare_with_start
        from finetuning.evaluation.judged import without_judge

        candidate = self._candidate("start", adapter.path)
        plan = self._plan(exam, "published_answers", (adapter.fingerprint, begun["weights"]))
        answers = plan.obtain(self._answers(exam, candidate, progress))
        spec = without_judge(self.recipe.evaluation)
        figures = compare_with_start(spec, exam, answers.path, self.folder, self.line.asked_with())
        return known.model_copy(update={"metrics": figures})

    def _benchmarks(
        self, exam: "Exam", benchmarks: dict[str, Benchmark], progress: Progress
    ) -> dict[str, BenchmarkFigures]:
        """Compare base and tuned model in benchmarks; the base's scores too are those that another recipe left."""
        from finetuning.evaluation.benchmark_scores import compare_benchmarks, sit_benchmarks

        spec, kwargs = self.recipe.evaluation, self.gpu.model_kwargs(self.recipe.base_model)
        base_model = self.line.quantized_base_model

        def answer(candidate: "Candidate", out: Path) -> "BenchmarkAnswering":
            with self.gpu.exclusive(self.context.log.info):
                return sit_benchmarks(spec, benchmarks, exam, candidate, progress, out)

        base = self.artifacts.plan(
            self.context,
            sections=sections(self.recipe, "base_benchmarks"),
            resolved={
                **tasks_revision(spec),
                "chat_template": self.line.chat_dataset.resolved["chat_template"],
                "model_kwargs": kwargs,
            },
            inputs=[base_model],
            beside=("base_benchmarks", base_model.fingerprint),
        ).obtain(lambda out: answer(self._candidate("base", None), out))
        answer(self._candidate("tuned", self.line.lora_adapter.path), self.folder)
        progress.update("benchmarks: comparing")
        return compare_benchmarks(base.path, self.folder)
