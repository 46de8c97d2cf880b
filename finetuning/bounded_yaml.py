"""YAML from elsewhere: a few hundred bytes may stand for billions of values, as an alias repeats what it names."""

from typing import Any

import yaml

MOST, DEEPEST = 20_000, 50
LONGEST_NUMBER = 1000  # digits; the time that longer ones take grows with their square


class TooMuchYaml(yaml.YAMLError):
    """What the text stands for is too large, too deep, or has no end."""

    def __init__(self, problem: str, node: yaml.Node | yaml.Event) -> None:
        super().__init__(problem)
        self.problem, self.problem_mark = problem, node.start_mark


class BoundedLoader(yaml.SafeLoader):
    """A SafeLoader that stops where a text gets too large or too deep, before it has read the rest."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node, and all that is in it."""
        self._depth, self._nodes = self._depth + 1, self._nodes + 1
        if self._depth > DEEPEST or self._nodes > MOST:
            raise TooMuchYaml(_too_deep() if self._depth > DEEPEST else _too_large(), self.peek_event())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """Return the one document of the text, or None where it is empty."""
        try:
            return super().get_single_node()
        except yaml.YAMLError:
            raise
        except Exception as error:  # such as of an escape that is no character
            problem = f"this cannot be read{_reason(error)}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark()) from None

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return what a node stands for.

        Raises:
            yaml.MarkedYAMLError: nothing, by its tag. PyYAML raises a KeyError, a TypeError and others of its own.
        """
        is_number = node.tag.endswith((":int", ":float"))
        if is_number and len(node.value) > LONGEST_NUMBER:
            problem = f"a number of more than {LONGEST_NUMBER:,} digits"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # such as of a date with a 13th month, or of `!!bool maybe`
            problem = f"this is no !!{node.tag.rpartition(':')[2]}{_reason(error)}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


def _reason(error: Exception) -> str:
    """The words of an error about the text; others speak of PyYAML's own code."""
    return f": {error}" if isinstance(error, (ValueError, ArithmeticError)) else ""


def _too_deep() -> str:
    return f"more than {DEEPEST} levels, one in another"


def _too_large() -> str:
    return f"more than {MOST:,} values, with what aliases repeat written out"


def require_bounded(node: yaml.Node) -> None:
    """Check that a document has no more than 20,000 values, 50 levels deep, with every alias written out.

    Raises:
        TooMuchYaml: it has, or holds itself.
    """
    _count(node, {}, [])


def _count(node: yaml.Node, counted: dict[int, int], within: list[yaml.Node]) -> int:
    """How many values a node stands for. What was counted once is not looked at again, whatever names it."""
    if node in within:
        raise TooMuchYaml("an alias names what it is in", node)
    if len(within) >= DEEPEST:
        raise TooMuchYaml(_too_deep(), node)
    if id(node) not in counted:
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        counted[id(node)] = 1
        for part in parts:
            counted[id(node)] += _count(part, counted, [*within, node])
            if counted[id(node)] > MOST:
                raise TooMuchYaml(_too_large(), node)
    return counted[id(node)]


def load(text: str, loader_class: type[BoundedLoader] = BoundedLoader) -> Any:
    """What a text holds.

    Args:
        loader_class: one that knows more tags.

    Raises:
        yaml.YAMLError: it is no YAML, or too much of it.
    """
    loader = loader_class(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        require_bounded(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()
