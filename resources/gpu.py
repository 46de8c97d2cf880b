"""What this machine can do: its device, number formats and attention kernels, and what a recipe gets of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from finetuning.errors import InfrastructureError
from finetuning.memory.fit import Fit, Placement, fit_of
from finetuning.memory.free import free_memory
from finetuning.memory.rows import TrainingData
from finetuning.memory.savings import with_settings
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.recipe import Recipe
from finetuning.settings import Settings
from resources.store.locks import locked

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

MIB = 2**20

# Kernel -> the package that has it and the least compute capability that it runs on; sdpa and eager come with torch.
FLASH_KERNELS = {
    "flash_attention_2": ("flash_attn", (8, 0)),
    "flash_attention_3": ("flash_attn_interface", (9, 0)),
    "flash_attention_4": ("flash_attn.cute", (9, 0)),
}


@dataclass(frozen=True)
class Machine:
    """What was found: `device` is cuda or cpu, memory in bytes, `capability` the CUDA compute capability.

    `bf16` is whether its products of bfloat16 are those of the hardware.
    """

    device: Literal["cuda", "cpu"]
    name: str
    capability: tuple[int, int] | None
    free_memory: int
    bf16: bool


@dataclass(frozen=True)
class AttentionChoice:
    """The kernel to use, and why each better one of the recipe's list was passed over."""

    kernel: str
    passed_over: dict[str, str]


def detect() -> Machine:
    """Return what this process can use of the machine that it runs on."""
    import torch

    if torch.cuda.is_available():
        return Machine(
            device="cuda",
            name=torch.cuda.get_device_name(),
            capability=torch.cuda.get_device_capability(),
            free_memory=free_memory(),
            bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        )
    # torch multiplies bfloat16 on every CPU, and where oneDNN has no kernel for it (AVX2 and older) up to 100 times
    # slower than float32.
    bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return Machine("cpu", "CPU", None, free_memory=free_memory(), bf16=bf16)


def obstacle(kernel: str, machine: Machine) -> str | None:
    """Return why `kernel` cannot run here, or None if it can."""
    if kernel not in FLASH_KERNELS:
        return None
    package, least = FLASH_KERNELS[kernel]
    if machine.capability is None:
        return "needs a CUDA GPU, and none was found"
    if machine.capability < least:
        found = ".".join(map(str, machine.capability))
        return f"needs compute capability {least[0]}.{least[1]}, and {machine.name} has {found}"
    failure = import_failure(package)
    return f"needs the package {package}, which does not import: {failure}" if failure else None


def import_failure(name: str) -> str | None:
    """Return why `name` cannot be imported, or None if it can: a kernel built for another torch is found, and fails."""
    try:
        import_module(name)
    except Exception as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


class Gpu(dg.ConfigurableResource):
    """Injects the bitsandbytes and attention configuration that is right for this machine.

    `require: cuda` makes a machine without a GPU an error, instead of a slow training on its CPU.
    """

    require: str = "any"
    locks: str | None = ".dagster"
    """Folder of the locks; none where somebody else, such as a cluster, hands GPUs out to one process each."""

    @contextmanager
    def exclusive(self, work: Literal["training", "inference"], log: Callable[[str], None]) -> Iterator[None]:
        """Keep every other process of this instance from such work within the block, however it was started.

        Beside one training, or what fills a GPU like it (quantizing, merging), there may be one evaluation, which needs
        little memory and would wait for days.
        """
        if self.locks is None:
            yield
            return
        path = Path(self.locks).absolute() / f"{work}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, log):
            yield

    def machine(self) -> Machine:
        """Return the machine that was found.

        Raises:
            FinetuningError: a GPU is required and there is none, or `require` is not a word that is known.
        """
        require, machine = Settings.of(require=self.require).require, detect()
        if require == "cuda" and machine.device != "cuda":
            import torch

            build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
            raise InfrastructureError(
                f"gpu.require: cuda, but torch {torch.__version__} (built with {build}) sees no GPU; found: "
                f"{machine.name} with {machine.free_memory / 2**30:.0f} GiB free. Run `nvidia-smi` to see whether the "
                "driver does, install a CUDA build of torch, or set FINETUNING_REQUIRE=any to run on the CPU."
            )
        return machine

    def quantization_config(self, base_model: BaseModelSpec) -> "BitsAndBytesConfig | None":
        """Return the bitsandbytes configuration that the recipe asks for; None for full precision."""
        from finetuning.quantization import bitsandbytes_config

        spec = base_model.quantization
        return bitsandbytes_config(spec, self.dtype(base_model)) if spec else None

    def dtype(self, base_model: BaseModelSpec) -> str:
        """Return the name of the torch dtype to compute in: the recipe's, or another where bfloat16 is not for it.

        A GPU without bfloat16 computes in float16, and a CPU in float32.
        """
        machine = self.machine()
        if base_model.dtype != "bfloat16" or machine.bf16:
            return base_model.dtype
        return "float16" if machine.device == "cuda" else "float32"

    def attention(self, base_model: BaseModelSpec) -> AttentionChoice:
        """Return the first kernel that the recipe allows and this machine has.

        Raises:
            FinetuningError: none of them can run here; the reason for each is in the text.
        """
        machine, passed_over = self.machine(), {}
        for kernel in base_model.attention:
            reason = obstacle(kernel, machine)
            if reason is None:
                return AttentionChoice(kernel, passed_over)
            passed_over[kernel] = reason
        reasons = "; ".join(f"{kernel} {reason}" for kernel, reason in passed_over.items())
        raise InfrastructureError(
            f"base_model.attention: none of the kernels can run here: {reasons}. Add sdpa to the list (it runs "
            "everywhere), or install what is missing: pip install '.[flash]'."
        )

    def model_kwargs(self, base_model: BaseModelSpec) -> dict[str, Any]:
        """Return the keyword arguments (JSON) for `from_pretrained` of a model that lies in an artifact."""
        return {
            "dtype": self.dtype(base_model),
            "attn_implementation": self.attention(base_model).kernel,
            "device_map": {"": 0 if self.machine().device == "cuda" else "cpu"},
            "use_safetensors": True,
            "trust_remote_code": base_model.trust_remote_code,
        }

    def quantization_kwargs(self, base_model: BaseModelSpec) -> dict[str, Any]:
        """Return the same for quantizing what is then kept in an artifact.

        Weights that are not quantized are kept as the recipe says, whatever this CPU computes in: the files are the
        same on every CPU.
        """
        kwargs = self.model_kwargs(base_model)
        return kwargs | ({"dtype": base_model.dtype} if self.machine().device == "cpu" else {})

    def fit(
        self,
        recipe: Recipe,
        model_folder: Path,
        longest: int | None = None,
        supervised: int | None = None,
        new_tokens: Iterable[int] = (),
        processes: int = 1,
    ) -> Fit:
        """Predict what training the recipe needs of this machine's memory, beside what is free. Loads no weights.

        Args:
            model_folder: the base model's artifact, of which `config.json` is read.
            longest: tokens of the longest row, where it is shorter than `chat.max_length`.
            supervised: how many of a row's tokens are supervised at most, where it is not all of them.
            new_tokens: ids that the chat template adds to the base model's.
            processes: that train together: each on a GPU of its own, or all on the CPU.

        Raises:
            FinetuningError: the base model runs code that its repo ships.
        """
        most = min(longest or recipe.chat.max_length, recipe.chat.max_length)
        rows, place = TrainingData(most, supervised, list(new_tokens)), Placement(self.machine().device, processes)
        return fit_of(self.adapted(recipe, processes), model_folder, rows, place, lambda: self.machine().free_memory)

    def adapted(self, recipe: Recipe, processes: int = 1) -> Recipe:
        """Return the recipe with this machine's number format and kernel, and as many workers as share the weights.

        Args:
            processes: that train together: each on a GPU of its own, or all on the CPU.

        Raises:
            FinetuningError: no kernel that the recipe allows can run here.
        """
        # Each with a memory of its own, which is what a share of the base model would be small for.
        sharing = (recipe.resources.workers or processes) if self.machine().device == "cuda" else 1
        return with_settings(
            recipe,
            {
                "base_model.dtype": self.dtype(recipe.base_model),
                "base_model.attention": (self.attention(recipe.base_model).kernel,),
                "resources.workers": sharing,
            },
        )
