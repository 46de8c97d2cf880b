"""Fills the texts of published repos, which lie in the folder `templates`, with values.

>>> render("base.md.jinja", header="license: mit", title="phi-2", source="microsoft/phi-2")
'---\nlicense: mit\n---\n\n# phi-2\n…'
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).with_name("templates")


def render(name: str, **values: object) -> str:
    """Return a template's text with the values in it; what stands in a value is text, and never a template itself."""
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    # The texts are Markdown and Python, in which HTML's escapes would be read as they stand.
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
