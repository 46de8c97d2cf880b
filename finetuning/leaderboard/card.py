"""The leaderboard as a data set repo on the hub: a card, the document, and the plot.

No row of the data, no answer and no folder of this machine is in them.
"""

import json
import shutil
from pathlib import Path

import yaml

from finetuning.leaderboard.document import Leaderboard, LeftOut
from finetuning.leaderboard.leaderboard import DOCUMENT
from finetuning.leaderboard.page import PLOT, markdown

HEADER = {"pretty_name": "Leaderboard of fine-tuned models", "tags": ["leaderboard", "evaluation"], "viewer": False}


def card_files(board: Leaderboard, made: Path, folder: Path) -> dict[str, Path]:
    """Write what is published into `folder`; return each file by its path in the repo.

    Args:
        made: where the leaderboard lies, of which the plot is taken.
    """
    # Why an exam could not be read is told with folders of this machine.
    left_out = [LeftOut(name=one.name, why="its exam could not be read") for one in board.left_out]
    public = board.model_copy(update={"left_out": left_out})
    header = yaml.safe_dump(HEADER, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{header}---\n\n{markdown(public, with_pages=False)}")
    (folder / DOCUMENT).write_text(json.dumps(public.as_json(), indent=2, allow_nan=False))
    if (made / PLOT).exists():
        shutil.copy(made / PLOT, folder / PLOT)
    return {path.name: path for path in sorted(folder.iterdir())}
