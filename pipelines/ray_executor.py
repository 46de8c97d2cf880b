"""Steps as jobs of a Ray cluster, each asking for the cores, GPUs and memory that the recipe of its partition names.

`resources: {cpus: 4, gpus: 1}` in `recipes/phi-2.yaml` is what `dagster-ray` then asks the cluster for.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from typing import Any, cast

import dagster as dg
from dagster_ray.core.executor import RayStepHandler
from ray.job_submission import JobErrorType, JobStatus, JobSubmissionClient

from finetuning.errors import INFRASTRUCTURE, KIND, FinetuningError, InfrastructureError
from finetuning.recipe.resources import ResourcesSpec
from finetuning.recipe.smoke import load_for_run
from pipelines.outcomes import failed_check, failed_step
from resources.dagster_internals import (
    PARTITION_NAME_TAG,
    CheckStepHealthResult,
    EngineEventData,
    ExecutionPlan,
    ExecutionStep,
    IStepContext,
    KnownExecutionState,
    PlanOrchestrationContext,
    RetryMode,
    SerializableErrorInfo,
    StepDelegatingExecutor,
    StepFailureData,
    StepHandlerContext,
    StepRetryData,
    UserFailureData,
)
from resources.ray_cluster.jobs import Amounts, asked_for, connected, job_environment, nodes_of, stop_lost_jobs
from resources.ray_cluster.reach import require_reachable

TRAINS = ("variants", "lora_adapter")
SECONDS_BETWEEN_LOOKS = 5
MOST_RETRIES = 3  # of a step whose job died
LONGEST_SILENCE = 600.0  # seconds without an answer of the cluster, after which its steps count as lost
SHOWN = 1500  # characters, the last ones, of what Ray says of a job


def resources_of(step: IStepContext) -> ResourcesSpec:
    """Return what the partition's recipe asks for; the default where the recipe is wrong, which the step will say."""
    try:
        return load_for_run(step.run_tags[PARTITION_NAME_TAG]).resources
    except (KeyError, FinetuningError):
        return ResourcesSpec()


class RecipeStepHandler(RayStepHandler):
    """dagster-ray's handler of steps, which asks for what the recipe says and tells a waiting job from a dead one."""

    def __init__(self, client: JobSubmissionClient) -> None:
        super().__init__(client, None, None, None, None, None, None)
        self.nodes = nodes_of(client)
        self.requeued: Counter[str] = Counter()
        self.waiting: set[str] = set()
        self.ended: set[str] = set()
        self.unsent: set[str] = set()
        self.silent: dict[str, float] = {}

    def asked(self, step: IStepContext) -> Amounts:
        """Return what the step asks the cluster for."""
        made = step.job.get_definition().asset_layer.get_assets_def_for_node(step.node_handle)
        uses_gpu = bool(made) and any(tags.get("gpu") == "used" for tags in made.tags_by_key.values())
        gpus = any(node.has.gpus for node in self.nodes)
        return asked_for(resources_of(step), step.step.key in TRAINS, uses_gpu, gpus)

    def has_room(self, asked: Amounts) -> bool:
        """Return whether the step fits on one of the nodes with nothing else on it."""
        return any(all(amount <= has for amount, has in zip(asked, node.has, strict=True)) for node in self.nodes)

    def _get_ray_job_submission_id(self, step_handler_context: StepHandlerContext) -> str:
        """Return the job's name in Ray: dagster-ray's is a hash of 32 bits, which two jobs of a cluster may share."""
        given, step = step_handler_context.execute_step_args, self._get_step_key(step_handler_context)
        attempt = given.known_state.get_retry_state().get_attempt_count(step) if given.known_state else 0
        job = f"{step}-{given.run_id}-{attempt}"
        return f"{job}-{self.requeued[job]}"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Hand the step's job to the cluster; where that does not answer, `check_step_health` tries it again."""
        step = step_handler_context.get_step_context(self._get_step_key(step_handler_context))
        self.num_cpus, self.num_gpus, self.memory = asked = self.asked(step)
        self.runtime_env = {"env_vars": job_environment(resources_of(step).cpus)}
        step.log.info(f"handed to the Ray cluster; asks for {asked}")
        job = self._get_ray_job_submission_id(step_handler_context)
        try:
            yield from super().launch_step(step_handler_context)
        except (OSError, RuntimeError) as error:
            step.log.warning(f"the Ray cluster did not take it: {error}; it is asked again")
            self.unsent.add(job)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Return whether the step's job waits, runs, or has ended as its last events say."""
        job = self._get_ray_job_submission_id(step_handler_context)
        try:
            found = self.client.get_job_info(job)
        except (OSError, RuntimeError) as error:
            return self._without_answer(step_handler_context, job, error)
        self.silent.pop(job, None)
        self.unsent.discard(job)
        if found.error_type == JobErrorType.JOB_SUPERVISOR_ACTOR_START_TIMEOUT:
            # Ray takes out of its queue what waits longer than RAY_JOB_START_TIMEOUT_SECONDS, a quarter of an hour.
            self.requeued[job.rpartition("-")[0]] += 1
            list(self.launch_step(step_handler_context))
        elif found.status == JobStatus.PENDING and job not in self.waiting:
            self.waiting.add(job)
            step = step_handler_context.get_step_context(self._get_step_key(step_handler_context))
            room = "" if self.has_room(self.asked(step)) else ", which no node has that is there now"
            step.log.info(f"waits in the Ray cluster's queue for {self.asked(step)}{room}")
        elif found.status.is_terminal():
            if job in self.ended:
                said = (found.message or "").strip()[-SHOWN:]
                return CheckStepHealthResult.unhealthy(f"its Ray job {job} {found.status.lower()}: {said}")
            self.ended.add(job)  # the step's last events may be on their way
        return CheckStepHealthResult.healthy()

    def _without_answer(self, context: StepHandlerContext, job: str, error: Exception) -> CheckStepHealthResult:
        unknown = "status code 404" in str(error)
        if unknown and job not in self.unsent:
            return CheckStepHealthResult.unhealthy(f"the Ray cluster knows nothing of its job {job}")
        since = self.silent.setdefault(job, time.monotonic())
        if time.monotonic() - since > LONGEST_SILENCE:
            return CheckStepHealthResult.unhealthy(f"the Ray cluster does not answer: {error}")
        if unknown:
            list(self.launch_step(context))
        return CheckStepHealthResult.healthy()


def trouble_in(event: dg.DagsterEvent) -> str | None:
    """Return what went wrong with a step or a check, where the event is about that."""
    found = None
    if event.is_step_failure:
        found = failed_step(event)
    elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        found = failed_check(event)
    return found[1] if found else None


class RayExecutor(StepDelegatingExecutor):
    """Dagster's executor of steps that run elsewhere, which also restarts a step whose job died."""

    def __init__(self, handler: RecipeStepHandler, **settings: Any) -> None:
        super().__init__(handler, check_step_health_interval_seconds=SECONDS_BETWEEN_LOOKS, **settings)
        self.handler = handler

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Generator[dg.DagsterEvent, Any, None]:
        """Run the steps as jobs of the cluster, and yield their events.

        Raises:
            InfrastructureError: steps cannot reach what they share, or one fits on no node.
        """
        address = self.handler.client.get_address()
        # The process by which a run is found to be lost.
        dg.DagsterEvent.engine_event(
            plan_context, f"Steps are jobs of the Ray cluster at {address}", EngineEventData.in_process(os.getpid())
        )
        require_reachable(plan_context.instance, [node.address for node in self.handler.nodes])
        for key in execution_plan.step_keys_to_execute:
            self.require_room(plan_context.for_step(cast(ExecutionStep, execution_plan.get_step_by_key(key))))
        partition = plan_context.dagster_run.tags.get(PARTITION_NAME_TAG)
        stop_lost_jobs(self.handler.client, plan_context.instance, partition)
        for event in super().execute(plan_context, execution_plan):
            if trouble := trouble_in(event):  # of what steps log elsewhere, a terminal shows nothing
                print(trouble, file=sys.stderr, flush=True)
            yield event

    def require_room(self, step: IStepContext) -> None:
        """Refuse a step that is too large for every node that is there or may be added.

        Raises:
            InfrastructureError: no node is large enough, and nobody adds nodes to this cluster.
        """
        asked, nodes = self.handler.asked(step), self.handler.nodes
        if any(node.grows for node in nodes) or self.handler.has_room(asked):
            return
        there = "; ".join(sorted({str(node.has) for node in nodes}))
        raise InfrastructureError(
            f"{step.run_tags.get(PARTITION_NAME_TAG)}: {step.step.key} asks for {asked}, and no node of the Ray "
            f"cluster at {self.handler.client.get_address()} has as much; its nodes have {there}. Lower `resources` "
            "in the recipe, or add a node."
        )

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> dg.DagsterEvent:
        """Return the event that the step is tried again, or has failed: by an error, or as its job died too often."""
        if err_info.cls_name:
            return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)
        lost = known_state.get_retry_state().get_attempt_count(step_context.step.key)
        if self.retries.enabled and lost < MOST_RETRIES:
            step_context.log.warning(f"{err_info.message}. It is started again ({lost + 1} of {MOST_RETRIES}).")
            return dg.DagsterEvent.step_retry_event(step_context, StepRetryData(error=err_info))
        why = UserFailureData("lost", err_info.message, {KIND: INFRASTRUCTURE})
        return dg.DagsterEvent.step_failure_event(step_context, StepFailureData(err_info, why))


def ray_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Return the executor of a run on the cluster that RAY_ADDRESS names.

    Raises:
        InfrastructureError: there is none.
    """
    config = cast(Mapping[str, Any], context.executor_config)
    return RayExecutor(
        RecipeStepHandler(connected()),
        retries=RetryMode.from_config(config["retries"]),
        max_concurrent=config.get("max_concurrent"),
    )
