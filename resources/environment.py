"""What is set before any library is imported: the variables that they read once, in a process and its children."""

import os

from finetuning.garbage import look_rarely
from finetuning.settings import ROOT, text_of
from resources.hub import environment_of_libraries

# Caches stay in the checkout, nothing calls home, and progress bars (which flood the UI) give way to lines of our own.
ENVIRONMENT = {
    "HF_HOME": str(ROOT / ".cache" / "huggingface"),
    "MPLCONFIGDIR": str(ROOT / ".cache" / "matplotlib"),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "TQDM_DISABLE": "1",
}


def prepare_libraries() -> None:
    """Set them, but for what the user has set, and import libraries in less time."""
    look_rarely()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(environment_of_libraries(text_of("source_hub"), text_of("hub")))
