"""Prints two exams side by side: settings, data, scores, and the answers in which they differ.

python -m pipelines.compare phi-2 mistral-7b-fennec              # what is in force of two recipes
python -m pipelines.compare phi-2@0a1b2c3d4e5f6071 phi-2         # an earlier adapter, report or version, and the last
python -m pipelines.compare artifacts/lora_adapter/phi-2/0a1b2c3d4e5f6071 phi-2 --page both.html
"""

import argparse
import sys
from html import escape
from pathlib import Path

from assets.exams import examined, find_exam
from finetuning.errors import FinetuningError
from resources.markdown import as_html

SHOWN = 3
INPUT = 4
NAMED = "an adapter, a report, a published version or another artifact"
# A page by itself: it loads nothing, and no text of an answer can have it do so.
HTML = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }}
th, td {{ border: 1px solid #ccc; padding: .2em .6em; text-align: left; vertical-align: top; overflow-wrap: anywhere }}
pre {{ background: #f5f5f5; padding: .6em; white-space: pre-wrap; overflow-wrap: anywhere }}
</style></head>
<body>
{body}
</body></html>
"""


def main(arguments: list[str] | None = None) -> int:
    """The exit code of the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compare", description="Put two exams side by side.")
    parser.add_argument("first", metavar="FIRST", help=f"a recipe, RECIPE@FINGERPRINT of {NAMED}, or its folder")
    parser.add_argument("second", metavar="SECOND", help="the other one")
    parser.add_argument("--rows", type=int, default=SHOWN, help=f"rows whose answers are shown ({SHOWN})")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it into this file, as Markdown")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write it into this file, as a page for a browser")
    chosen = parser.parse_args(arguments)
    from finetuning.evaluation.side_by_side import side_by_side
    from resources.artifacts import Artifacts

    try:
        store = Artifacts.of_environment().store()
        first, second = (examined(find_exam(name, store), store) for name in (chosen.first, chosen.second))
        page = side_by_side(first, second, max(0, chosen.rows))
        if chosen.out:
            chosen.out.write_text(page)
        if chosen.page:
            chosen.page.write_text(as_page(f"{first.name} beside {second.name}", page))
    except (FinetuningError, OSError) as error:
        print(error, file=sys.stderr)
        return INPUT
    written = [str(file) for file in (chosen.out, chosen.page) if file]
    print(f"written: {', '.join(written)}" if written else page)
    return 0


def as_page(title: str, text: str) -> str:
    """Return Markdown as a page for a browser, in one file."""
    return HTML.format(title=escape(title), body=as_html(text))


if __name__ == "__main__":
    sys.exit(main())
