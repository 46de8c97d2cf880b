"""Prints two exams side by side: settings, data, scores, and the answers in which they differ.

python -m pipelines.compare phi-2 mistral-7b-fennec              # what is in force of two recipes
python -m pipelines.compare phi-2@0a1b2c3d4e5f6071 phi-2         # an earlier adapter, report or version, and the last
"""

import argparse
import sys
from pathlib import Path

from assets.exams import examined, find_exam
from finetuning.errors import FinetuningError

SHOWN = 3
INPUT = 4
NAMED = "an adapter, a report or a published version"


def main(arguments: list[str] | None = None) -> int:
    """The exit code of the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compare", description="Put two exams side by side.")
    parser.add_argument("first", metavar="FIRST", help=f"a recipe, or RECIPE@FINGERPRINT of {NAMED}")
    parser.add_argument("second", metavar="SECOND", help="the other one")
    parser.add_argument("--rows", type=int, default=SHOWN, help=f"rows whose answers are shown ({SHOWN})")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page into this file")
    chosen = parser.parse_args(arguments)
    from finetuning.evaluation.side_by_side import side_by_side
    from resources.artifacts import Artifacts

    try:
        store = Artifacts.of_environment().store()
        first, second = (examined(find_exam(name, store), store) for name in (chosen.first, chosen.second))
        page = side_by_side(first, second, max(0, chosen.rows))
        if chosen.out:
            chosen.out.write_text(page)
    except (FinetuningError, OSError) as error:
        print(error, file=sys.stderr)
        return INPUT
    print(f"written: {chosen.out}" if chosen.out else page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
