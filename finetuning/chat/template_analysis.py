"""Finds out whether a chat template only writes the text of turns, or also looks at what it says.

{{ '<|user|>' + message['content'] | trim }} only writes it
{% if '</think>' in message['content'] %} looks at it
"""

from collections.abc import Iterator
from itertools import chain

from jinja2 import Environment, TemplateSyntaxError, nodes

# Between the text of a turn and the output nothing else may stand.
WRITING = (nodes.Output, nodes.Add, nodes.Concat, nodes.TemplateData)
# What hides where a value goes.
OPAQUE = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.Include, nodes.Import, nodes.Block)
FILTERS = ("trim", "length")
CALLS = ("raise_exception", "namespace", "range")


def only_writes_contents(template: str) -> bool:
    """Whether the template makes the same of all conversations with the same roles, but for the texts of the turns.

    False where that cannot be told from its source.
    """
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except TemplateSyntaxError:
        return False
    turns = {"messages", *(_name(loop.target) for loop in tree.find_all(nodes.For))}
    return all(_is_harmless(path, turns) for path in _paths((tree,)))


def _paths(path: tuple[nodes.Node, ...]) -> Iterator[tuple[nodes.Node, ...]]:
    """Each node below the last one of `path`, with all that it is in."""
    yield path
    for child in path[-1].iter_child_nodes():
        yield from _paths((*path, child))


def _is_harmless(path: tuple[nodes.Node, ...], turns: set[str]) -> bool:
    node, parent = path[-1], path[-2] if len(path) > 1 else None
    match node:
        case nodes.Getattr(attr="content") | nodes.Getitem(arg=nodes.Const(value="content")):
            return _is_written(path)
        case nodes.Getattr(attr="previtem" | "nextitem"):
            return False
        case nodes.Getitem(arg=nodes.Const(value=str())):
            return True
        case nodes.Getitem(arg=nodes.Getitem(arg=nodes.Const(value="role")) | nodes.Getattr(attr="role")):
            return True
        case nodes.Getitem():
            # A turn, or some of them: what is made of these?
            return _counts(node.arg) and _is_looked_into(node, parent)
        case nodes.Filter():
            return node.name in FILTERS
        case nodes.Call():
            return isinstance(node.node, nodes.Name) and node.node.name in CALLS
        case nodes.Name(ctx="load") if node.name in turns:
            return _is_looked_into(node, parent)
    return not isinstance(node, OPAQUE)


def _is_written(path: tuple[nodes.Node, ...]) -> bool:
    """Whether the value of the last node of `path` goes straight to the output."""
    for inner, outer in zip(reversed(path), reversed(path[:-1]), strict=False):
        if isinstance(outer, nodes.Output):
            return True
        chosen = isinstance(outer, nodes.CondExpr) and inner is not outer.test
        trimmed = isinstance(outer, nodes.Filter) and outer.name == "trim" and not (outer.args or outer.kwargs)
        if not (isinstance(outer, WRITING) or chosen or trimmed):
            return False
    return False


def _is_looked_into(turns: nodes.Node, parent: nodes.Node | None) -> bool:
    """Whether only a part of a turn, or the number or order of turns, is used."""
    if isinstance(parent, (nodes.Getattr, nodes.Getitem)):
        return parent.node is turns
    if isinstance(parent, nodes.For):
        return parent.iter is turns
    return isinstance(parent, nodes.Filter) and parent.name == "length"


def _counts(index: nodes.Node) -> bool:
    """Whether an index is made of whole numbers and the loop's own counters."""
    inside = list(chain([index], index.find_all(nodes.Node)))
    numbers = all(isinstance(node.value, int) for node in inside if isinstance(node, nodes.Const))
    return numbers and all(node.name == "loop" for node in inside if isinstance(node, nodes.Name))


def _name(target: nodes.Node) -> str:
    return target.name if isinstance(target, nodes.Name) else ""
