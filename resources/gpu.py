"""What this machine can do: its device, number formats and attention kernels, and what a recipe gets of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from packaging.version import Version

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


@dataclass(frozen=True)
class FlashKernel:
    """Where transformers finds an attention kernel that does not come with torch, and what that runs on."""

    package: str
    """Its name on the package index: flash-attn-4 fills a part of the folder that flash-attn is in."""
    oldest: str
    functions: Mapping[str, tuple[str, ...]]
    """What is taken of each module."""
    capability: tuple[int, int]
    """The least CUDA compute capability."""


FUNCTIONS = ("flash_attn_func", "flash_attn_varlen_func")
PADDING = {"flash_attn.bert_padding": ("pad_input", "unpad_input")}
FLASH_KERNELS = {
    "flash_attention_2": FlashKernel("flash-attn", "2.3.3", {"flash_attn": FUNCTIONS, **PADDING}, (8, 0)),
    "flash_attention_3": FlashKernel("flash-attn-3", "3.0.0b1", {"flash_attn_interface": FUNCTIONS}, (9, 0)),
    "flash_attention_4": FlashKernel("flash-attn-4", "4.0.0b1", {"flash_attn.cute": FUNCTIONS}, (9, 0)),
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
    flash = FLASH_KERNELS[kernel]
    if machine.capability is None:
        return "needs a CUDA GPU, and none was found"
    if machine.capability < flash.capability:
        needed, found = (".".join(map(str, numbers)) for numbers in (flash.capability, machine.capability))
        return f"needs compute capability {needed}, and {machine.name} has {found}"
    lack = lack_of(flash)
    return f"needs {lack}" if lack and not has_hub_kernel(kernel) else None


def lack_of(flash: FlashKernel) -> str | None:
    """Return what of the kernel's package is not there, or None if all of it is, and works."""
    try:
        found = version(flash.package)
    except PackageNotFoundError:
        return f"the package {flash.package}, which is not installed"
    if Version(found) < Version(flash.oldest):
        return f"{flash.package} {flash.oldest} or later, and {found} is installed"
    for name, functions in flash.functions.items():
        if failure := import_failure(name):
            return f"the package {flash.package} {found}, of which {name} does not import: {failure}"
        if lacking := [function for function in functions if not hasattr(import_module(name), function)]:
            return f"the package {flash.package} {found}, of which {name} has no {lacking[0]}"
    return None


def has_hub_kernel(kernel: str) -> bool:
    """Return whether the package `kernels` is there and fetches this kernel from the Hub for transformers."""
    if find_spec("kernels") is None:
        return False
    from transformers.utils.import_utils import is_flash_attn_kernel_fallback_available

    return is_flash_attn_kernel_fallback_available(kernel.rpartition("_")[2])


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
    def exclusive(self, log: Callable[[str], None]) -> Iterator[None]:
        """Keep every other process of this instance from work with models within the block, however it was started.

        Training, evaluating, quantizing and merging may each fill a GPU, and were each predicted to have all of it.
        """
        if self.locks is None:
            yield
            return
        path = Path(self.locks).absolute() / "gpu.lock"
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
            f"base_model.attention: none of the kernels can run here: {reasons}. Add sdpa to the list (or "
            "varlen, where training.packing is true): they run everywhere. Or install what is missing: see docs/gpu.md."
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
