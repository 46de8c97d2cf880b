"""What `training.method: grpo` rewards, and what does not go with it.

{"final-answer": 1.0, "length": 0.1}  or  ["final-answer"]
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from finetuning.recipe.evaluation import LESS_IS_BETTER, OF_ANSWERS, UNBOUNDED
from finetuning.recipe.mistakes import KeyPath, nearest
from finetuning.recipe.spec import listed

RewardTerm = Literal[
    "final-answer",
    "exact-match",
    "contains",
    "rouge-l",
    "chrf",
    "python-tests",
    "stop-rate",
    "format",
    "length",
    "citations",
]
TERMS = get_args(RewardTerm)
CITATIONS: RewardTerm = "citations"
HOTTEST = 2.0  # temperature of vLLM
VLLM_SHARE = "vllm_gpu_memory_utilization"
# Keys that `grpo` alone has, with their defaults.
OF_GROUPS: Mapping[str, Any] = {
    "reward": {},
    "num_generations": 8,
    "max_completion_length": 256,
    "temperature": 1.0,
    "top_p": 1.0,
    "num_iterations": 1,
    "epsilon": 0.2,
    "epsilon_high": None,
    "scale_rewards": "group",
    "mask_truncated_completions": False,
    "use_vllm": False,
    "vllm_gpu_memory_utilization": 0.3,
}
# Keys that other methods have, and why `grpo` has none of them.
NOT_OF_GROUPS = {
    "packing": "draws its answers row by row",
    "tokens_per_step": "does not know how long answers will be",
    "neftune_noise_alpha": "would draw answers without the noise that it learns them with",
    "early_stopping_patience": "is not judged by the loss of reference answers",
}


def weighted(value: Any) -> Any:
    """The terms of a reward with their weights; a list weighs all by 1.

    Raises:
        ValueError: a term is there twice, is none, or has no weight.
    """
    if isinstance(value, (list, tuple)):
        twins = [name for name in value if list(value).count(name) > 1]
        if twins:
            raise ValueError(f"{twins[0]} is there twice; write {{{twins[0]}: 2.0}} to weigh it more")
        value = dict.fromkeys(map(str, value), 1.0)
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is no list of terms, nor terms with weights; write [final-answer]")
    for name, weight in value.items():
        if name not in TERMS:
            raise ValueError(f"{name!r} {_refusal(str(name))}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight == 0:
            raise ValueError(f"{name}: {weight!r} is no weight; write a number that is not 0, such as 1.0")
    return {name: float(weight) for name, weight in value.items()}


def _refusal(name: str) -> str:
    if name in UNBOUNDED:
        return "is measured on the reference, and says nothing of an answer; write final-answer or chrf"
    if name in LESS_IS_BETTER:
        return f"is better the less there is of it; write format for `unclear`, stop-rate for `empty`, not {name}"
    return f"is no term of a reward; there are {listed(TERMS)}{nearest(name, TERMS)}"


def reward_rules(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What does not go with `training.method: grpo`, and what goes with nothing else."""
    training: Mapping[str, Any] = data["training"] if isinstance(data.get("training"), Mapping) else {}
    method = training.get("method", "sft")
    if method != "grpo":
        for key, default in OF_GROUPS.items():
            if key in training and training[key] != default:
                yield (
                    ("training", key),
                    f"{training[key]} would be ignored: training.method is {method}; leave it out, or write method: "
                    "grpo",
                )
        return
    reward = training.get("reward") or {}
    if isinstance(reward, (list, Mapping)) and not set(map(str, reward)) & set(OF_ANSWERS):
        said = f"{listed(map(str, reward))} alone" if reward else "nothing"
        yield (
            ("training", "reward"),
            f"{said}, by which no answer is right: name what compares an answer with its row's: {listed(OF_ANSWERS)}",
        )
    elif isinstance(reward, Mapping) and all(_falls(reward[name]) for name in OF_ANSWERS if name in reward):
        yield ("training", "reward"), "answers that are right would cost; give one metric of answers a weight above 0"
    for key, why in NOT_OF_GROUPS.items():
        if training.get(key):
            yield ("training", key), f"{training[key]} with method: grpo, which {why}; leave it out"
    yield from _of_vllm(training, data)
    yield from _groups(training, data)
    yield from _of_passages(set(map(str, reward)) if isinstance(reward, (list, Mapping)) else set(), data)
    yield from _of_sections(data)


def _falls(weight: Any) -> bool:
    return isinstance(weight, (int, float)) and weight < 0


def _groups(training: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What keeps answers to one question from being drawn together."""
    resources: Mapping[str, Any] = data["resources"] if isinstance(data.get("resources"), Mapping) else {}
    rows, parts = training.get("per_device_train_batch_size", 8), training.get("gradient_accumulation_steps", 1)
    workers, group = resources.get("workers") or 1, training.get("num_generations", 8)
    numbers = (rows, parts, workers, group)
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        return
    drawn = rows * parts * workers
    if drawn % group:
        more = -(-drawn // group) * group
        yield (
            ("training", "num_generations"),
            f"{group}, and a step has {drawn} answers (per_device_train_batch_size {rows} × "
            f"gradient_accumulation_steps {parts} × {workers} process{'es' * (workers > 1)}), which are no whole "
            f"groups: make it {more}, or write num_generations: {_divisor(drawn)}",
        )
    if training.get("on_oom") == "halve-batch" and rows & (rows - 1):
        yield (
            ("training", "on_oom"),
            f"halve-batch with method: grpo and per_device_train_batch_size: {rows}, whose halves would make other "
            "groups; write a power of 2, such as 8",
        )


def _divisor(number: int) -> int:
    """The number of answers of a group nearest to 8 of which so many are a multiple."""
    fitting = [size for size in range(2, number + 1) if number % size == 0] or [2]
    return min(fitting, key=lambda size: abs(size - 8))


def _of_vllm(training: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What does not go with answers that vLLM draws, and what goes with these alone."""
    default = OF_GROUPS[VLLM_SHARE]
    if not training.get("use_vllm") and training.get(VLLM_SHARE, default) != default:
        yield ("training", VLLM_SHARE), f"{training[VLLM_SHARE]} would be ignored: use_vllm is false; leave it out"
    base: Mapping[str, Any] = data["base_model"] if isinstance(data.get("base_model"), Mapping) else {}
    if training.get("use_vllm") and base.get("quantization", "nf4") is not None:
        yield (
            ("training", "use_vllm"),
            "true, and the base model is quantized: each step's adapter would be rounded into it before answers are "
            "drawn; write base_model.quantization: null, or leave use_vllm out",
        )
    temperature = training.get("temperature")
    if training.get("use_vllm") and isinstance(temperature, (int, float)) and temperature > HOTTEST:
        yield (
            ("training", "temperature"),
            f"{temperature:g}, and use_vllm is true: vLLM draws by {HOTTEST:g} at most; write less, or leave use_vllm "
            "out",
        )


def _of_passages(terms: set[str], data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Terms that only answers with passages have, or only those without."""
    context: Mapping[str, Any] = data["context"] if isinstance(data.get("context"), Mapping) else {}
    if data.get("knowledge") is None and CITATIONS in terms:
        yield (
            ("training", "reward"),
            f"{CITATIONS}, and there are no passages to cite; leave it out, or add knowledge",
        )
    elif context.get("citations") is False and CITATIONS in terms:
        yield ("training", "reward"), f"{CITATIONS} with context.citations: false; leave one of them out"
    if data.get("knowledge") is not None and "python-tests" in terms:
        yield ("training", "reward"), "python-tests with knowledge, which would run citations too; write another term"


def _of_sections(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What other sections cannot say beside `grpo`."""
    resources: Mapping[str, Any] = data["resources"] if isinstance(data.get("resources"), Mapping) else {}
    if resources.get("strategy") == "fsdp":
        yield (
            ("resources", "strategy"),
            "fsdp with training.method: grpo, which draws answers by a whole model; write strategy: ddp",
        )
    if data.get("variants") is not None:
        yield (
            ("variants",),
            "with training.method: grpo, whose trials the loss of reference answers would choose from; leave it out, "
            "and compare recipes by their exams",
        )
    chat: Mapping[str, Any] = data["chat"] if isinstance(data.get("chat"), Mapping) else {}
    if chat.get("over_length") == "truncate":
        yield (
            ("chat", "over_length"),
            "truncate with training.method: grpo, whose references would be cut; write drop",
        )
