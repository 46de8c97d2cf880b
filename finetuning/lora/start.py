"""The adapter that a recipe goes on from: whether it is one of the same base model, what it says, and its training.

>>> adopted(spec, Path("adapters/phi-2"), "phi-2.yaml").r
8
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finetuning import git_lfs
from finetuning.errors import FinetuningError
from finetuning.recipe.lora import LoraSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

MOST_RANK = 1 << 16
# What to do with an adapter whose file does not fit its configuration.
WHOLE = (
    "Save it with all that its configuration names, and without the embeddings of its base model "
    "(save_embedding_layers=False)."
)

# What the adapter's own configuration decides; of the recipe's section only dropout is left to the recipe.
DECIDED = ("r", "lora_alpha", "use_rslora", "use_dora", "bias")


def fetch_start(repo: str, revision: str, api: "HfApi", where: str) -> tuple[Path, str]:
    """The folder with the adapter of a repo, and the commit that it is of.

    Raises:
        FinetuningError: it is not there, or may not be read.
    """
    from finetuning.hub_errors import explain

    try:
        commit = str(api.model_info(repo, revision=revision).sha)
        return Path(api.snapshot_download(repo, revision=commit, allow_patterns=[CONFIG, WEIGHTS])), commit
    except Exception as error:
        reason = explain(error, repo, api.endpoint, has_token=bool(api.token), revision=revision)
    # Out here: the client's error may hold the token.
    raise type(reason)(f"{where}: lora.from: {reason}")


def read_config(folder: Path, where: str) -> Mapping[str, Any]:
    """The configuration of the LoRA adapter in `folder`.

    Raises:
        FinetuningError: it has none, or its weights are not there.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
            raise FinetuningError(f"{where}: lora.from: {folder} is no adapter: it has no {name}; it has {there}.")
        with (folder / name).open("rb") as file:
            if file.read(len(git_lfs.BEGINS)) == git_lfs.BEGINS:
                raise FinetuningError(f"{where}: lora.from: {folder / name} {git_lfs.IS_A_POINTER}.")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (ValueError, RecursionError) as error:
        raise FinetuningError(f"{where}: lora.from: {folder / CONFIG} is no JSON ({error}). Fetch it again.") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise FinetuningError(
            f"{where}: lora.from: {folder} is an adapter of peft's kind {kind}, and training goes on from LORA alone."
        )
    return config


def adopted(spec: LoraSpec, folder: Path, where: str) -> LoraSpec:
    """The recipe's section with what the adapter in `folder` says of itself.

    Raises:
        FinetuningError: the recipe says something else, or the adapter is none that can be gone on from.
    """
    config = read_config(folder, where)
    found = {key: config[key] for key in DECIDED if config.get(key) is not None}
    if isinstance(found.get("r"), int) and found["r"] > MOST_RANK:
        raise FinetuningError(
            f"{where}: lora.from: {folder / CONFIG}: r: {str(found['r'])[:80]}, and no model has layers of so high a "
            "rank. Fetch the adapter again, or name another one."
        )
    for key in found:
        if key in spec.model_fields_set and getattr(spec, key) != found[key]:
            raise FinetuningError(
                f"{where}: lora.{key}: {_plain(getattr(spec, key))}, and the adapter that lora.from names has "
                f"{_plain(found[key])}. Leave it out, or write {_plain(found[key])}."
            )
    kept = config.get("modules_to_save")
    if "modules_to_save" in spec.model_fields_set and set(spec.modules_to_save or ()) != set(kept or ()):
        raise FinetuningError(
            f"{where}: lora.modules_to_save: {_plain(spec.modules_to_save)}, and the adapter that lora.from names has "
            f"{_plain(kept)}. Leave it out."
        )
    there = adapted_layers(folder, where)
    names = sorted({name.rpartition(".")[2] for name in there})
    wanted = spec.target_modules
    if "target_modules" in spec.model_fields_set and not isinstance(wanted, str):
        missing = [by for by in wanted if not any(name == by or name.endswith(f".{by}") for name in there)]
        more = [name for name in names if not any(by == name or by.endswith(f".{name}") for by in wanted)]
        if missing or more:
            raise FinetuningError(
                f"{where}: lora.target_modules: {_plain(wanted)}, and the adapter that lora.from names goes to "
                f"{', '.join(names)}. Leave it out."
            )
    dropout = spec.lora_dropout if "lora_dropout" in spec.model_fields_set else config.get("lora_dropout", 0.0)
    changes = found | {"target_modules": names, "modules_to_save": kept or None, "lora_dropout": dropout}
    try:
        return LoraSpec.model_validate(spec.model_dump() | changes)
    except ValidationError as error:
        wrong = error.errors()[0]
        key, value = ".".join(map(str, wrong["loc"])), repr(wrong["input"])[:80]
        raise FinetuningError(
            f"{where}: lora.from: {folder / CONFIG}: {key}: {value}: {wrong['msg']}. Fetch the adapter again, or name "
            "another one."
        ) from error


def adapted_layers(folder: Path, where: str) -> set[str]:
    """The layers that the adapter in `folder` goes to, by their whole name in the base model.

    Raises:
        FinetuningError: its file of weights is damaged, or has no adapter in it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            names = {name.partition(".lora_A")[0] for name in file.keys() if ".lora_A" in name}  # noqa: SIM118
    except SafetensorError as error:
        raise FinetuningError(
            f"{where}: lora.from: {folder / WEIGHTS} is cut short or damaged ({error}). Fetch it again."
        ) from error
    if not names:
        raise FinetuningError(f"{where}: lora.from: {folder / WEIGHTS} has no matrices of an adapter.")
    return {name.removeprefix("base_model.model.") for name in names}


def require_same_base(config: Mapping[str, Any], base: Mapping[str, Any], kept: Path, where: str) -> None:
    """Check that an adapter that was trained elsewhere is one of the recipe's base model.

    Args:
        config: of the adapter.
        base: what the recipe's base model resolved to: `source`, `revision`, `on_hub`.
        kept: the folder that it is kept in here.

    Raises:
        FinetuningError: it is one of another model, or does not say of which.
    """
    name, commit = config.get("base_model_name_or_path"), config.get("revision")
    source = str(base["source"])
    same = name in (source, str(kept)) or (name and Path(name).is_dir() and _is_folder(name, source))
    if not same:
        says = f"is one of {name}" if name else "does not say of which base model it is"
        raise FinetuningError(
            f"{where}: lora.from: the adapter {says}, and the recipe's base model is {source}. Write base_model: "
            f"{{repo: {name or '…'}}}; if both are the same model, write {source} as base_model_name_or_path into the "
            f"adapter's {CONFIG}."
        )
    if base["on_hub"] and isinstance(commit, str) and len(commit) == 40 and commit != base["revision"]:
        raise FinetuningError(
            f"{where}: lora.from: the adapter was trained on {name} at {commit}, and the recipe's base model is at "
            f"{base['revision']}. Write base_model: {{revision: {commit}}}."
        )


def _is_folder(name: str, source: str) -> bool:
    return Path(name).resolve() == Path(source).expanduser().resolve()


def _plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(str, value))}]"
    return json.dumps(value)


def go_on(model: Any, spec: LoraSpec, tokens: list[int], where: str) -> Any:
    """The model with the adapter that lies in the folder `lora.from`, ready to be trained further.

    Args:
        tokens: new to the base model.

    Raises:
        FinetuningError: the adapter does not fit the model, or trains the rows of other tokens.
    """
    from peft import PeftConfig, PeftModel

    from finetuning.lora.checks import require_exact_keys
    from finetuning.lora.embeddings import has_bias

    folder = Path(spec.start_from or "")
    modules = dict(model.named_modules())
    unknown = sorted(name for name in adapted_layers(folder, where) if name.replace(".base_layer", "") not in modules)
    if unknown:
        raise FinetuningError(
            f"{where}: lora.from: the adapter goes to {unknown[0]}, which {type(model).__name__} does not have: it is "
            "one of another base model."
        )
    config: Any = PeftConfig.from_pretrained(str(folder))
    trained = config.trainable_token_indices or []
    rows = {row for part in (trained.values() if isinstance(trained, dict) else [trained]) for row in part}
    if rows != set(tokens) or (tokens and has_bias(model.get_output_embeddings())):
        raise FinetuningError(
            f"{where}: lora.from: the adapter trains the rows of {len(rows)} new tokens, and base_model.chat_template "
            f"brings {len(tokens)} others. Write the chat_template that the adapter was trained with."
        )
    config.lora_dropout = spec.lora_dropout
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True, config=config)
    except RuntimeError as error:  # of torch, for shapes
        reason = " ".join(str(error).split())[:300]
        raise FinetuningError(f"{where}: lora.from: the adapter does not fit the base model: {reason}.") from error
    try:
        require_exact_keys(adapted, folder, WHOLE)
    except FinetuningError as error:
        raise FinetuningError(f"{where}: lora.from: {error}") from error
    strange = [name for name, weight in adapted.named_parameters() if "lora_" in name and not weight.isfinite().all()]
    if strange:
        raise FinetuningError(
            f"{where}: lora.from: {len(strange)} matrices of the adapter hold numbers that are not finite (the first "
            f"is {strange[0]}): nothing can be learned from there. Name a version from before its training diverged."
        )
    return adapted


def restore(model: Any, spec: LoraSpec) -> None:
    """Give an adapter that training goes on from the numbers that were saved.

    trl stores the adapters of a quantized model in bfloat16, which rounds them; `keep_master_weights` comes after it.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(model, load_peft_weights(spec.start_from or "", device="cpu"))
