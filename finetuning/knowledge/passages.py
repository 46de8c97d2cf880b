"""Cuts documents into passages: at headings, at paragraphs, and within a paragraph only where it is too long.

# Kettle\\n\\n## Care\\n\\nClean it.\\n\\nNever with solvents.
-> Passage("kettle.md", "Kettle › Care", "Clean it.\\n\\nNever with solvents.", offset=20)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from markdown_it import MarkdownIt

from finetuning.checks.counted import Counted
from finetuning.errors import FinetuningError
from finetuning.knowledge.documents import Document, documents_in
from finetuning.knowledge.summaries import PassagesSummary
from finetuning.recipe.knowledge import PassagesSpec

PASSAGES = "passages.parquet"
SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("heading", pa.string()),
        ("text", pa.string()),
        ("offset", pa.int64()),
        ("tokens", pa.int32()),
    ]
)
BETWEEN = " › "  # two headings, of which the second is below the first
MOST_HEADING = 160  # letters
GROUP_ROWS, READ_AT_ONCE = 10_000, 1_000

CountTokens = Callable[[Sequence[str]], list[int]]


class Passage(NamedTuple):
    """A part of a document: what is found for a question, shown to the model, and cited."""

    document: str
    heading: str
    text: str
    offset: int
    """Where in the document it begins, in characters."""
    tokens: int = 0
    """Of its heading and its text, as the embedding model counts them."""

    @property
    def shown(self) -> str:
        """Heading and text, as they are embedded and shown."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


class Block(NamedTuple):
    """A paragraph, list or table of a document, with the headings above it."""

    heading: str
    text: str
    offset: int


def write_passages(documents: Path, folder: Path, spec: PassagesSpec, count: CountTokens) -> PassagesSummary:
    """Write the passages of all documents into `folder`; return what they are.

    Args:
        documents: the folder that `write_documents` wrote.
        count: how many tokens of the embedding model each of some texts has.

    Raises:
        FinetuningError: there is not one passage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    passages, read, without, cut, longest, tokens = 0, 0, 0, 0, 0, 0
    with pq.ParquetWriter(folder / PASSAGES, SCHEMA) as writer:
        waiting: list[Passage] = []
        for document in documents_in(documents):
            found, within = passages_of(document, spec, count)
            read, without, cut = read + 1, without + (not found), cut + within
            passages += len(found)
            tokens += sum(passage.tokens for passage in found)
            longest = max([longest, *(passage.tokens for passage in found)])
            waiting += found
            if len(waiting) >= GROUP_ROWS:
                _write(writer, waiting)
        _write(writer, waiting)
    if not passages:
        raise FinetuningError("knowledge.documents: no passage could be made: the documents have headings alone.")
    return PassagesSummary(
        passages=passages,
        documents=read,
        longest=longest,
        mean=round(tokens / passages, 1),
        checks={"cut_passages": Counted(cut, passages, [])},
        without_text=without,
    )


def _write(writer: pq.ParquetWriter, waiting: list[Passage]) -> None:
    if waiting:
        arrays = [
            pa.array(column, field.type) for column, field in zip(zip(*waiting, strict=True), SCHEMA, strict=True)
        ]
        writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
        waiting.clear()


def passages_of(document: Document, spec: PassagesSpec, count: CountTokens) -> tuple[list[Passage], int]:
    """Return the passages of a document, and how many of them end within a paragraph.

    >>> words = lambda texts: [len(text.split()) for text in texts]
    >>> found, _ = passages_of(Document("a.md", "# A\\n\\none two\\n\\nthree"), PassagesSpec(), words)
    >>> [(passage.heading, passage.text) for passage in found]
    [('A', 'one two\\n\\nthree')]
    """
    blocks = list(blocks_of(document.text))
    within_limit = shortened({block.heading for block in blocks}, spec.max_tokens // 3, count)
    blocks = [block._replace(heading=within_limit[block.heading]) for block in blocks]
    # With the line break before it.
    sizes = [1 + size for size in count([block.text for block in blocks])]
    headings = dict(zip(names := list(dict.fromkeys(block.heading for block in blocks)), count(names), strict=True))
    found: list[Passage] = []
    held: list[tuple[Block, int]] = []
    within = 0

    def close() -> None:
        if held:
            texts = "\n\n".join(block.text for block, _ in held)
            size = sum(size for _, size in held) + headings[held[0][0].heading]
            found.append(Passage(document.name, held[0][0].heading, texts, held[0][0].offset, size))

    for block, size in zip(blocks, sizes, strict=True):
        room = max(1, spec.max_tokens - headings[block.heading])
        if size > room:
            close()
            held = []
            pieces = list(pieces_of(block, room, spec.overlap, count))
            within += len(pieces) - 1
            found += [
                Passage(document.name, block.heading, piece.text, piece.offset, tokens + headings[block.heading])
                for piece, tokens in pieces
            ]
            continue
        if held and (held[0][0].heading != block.heading or sum(size for _, size in held) + size > room):
            close()
            held = _repeated(held, block, spec.overlap, room - size)
        held.append((block, size))
    close()
    return found, within


def shortened(headings: Iterable[str], most: int, count: CountTokens) -> dict[str, str]:
    """Each heading with its last part, which says most, of at most so many tokens."""
    found = {}
    for heading in headings:
        short = heading
        while short and count([short])[0] > most:
            short = short[-(2 * len(short) // 3) :] if len(short) > 1 else ""
        found[heading] = short.strip(BETWEEN)
    return found


def _repeated(held: list[tuple[Block, int]], block: Block, overlap: int, room: int) -> list[tuple[Block, int]]:
    """The last paragraphs of a passage that the next one under the same heading repeats."""
    kept: list[tuple[Block, int]] = []
    for one in reversed(held):
        if one[0].heading != block.heading or sum(size for _, size in kept) + one[1] > min(overlap, room):
            break
        kept.insert(0, one)
    return kept


def blocks_of(text: str) -> Iterator[Block]:
    """Yield the paragraphs, lists and tables of a Markdown text, as they are written there, with their headings.

    A heading that nothing stands below is a paragraph itself.
    """
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    above: dict[int, str] = {}
    bare: Block | None = None  # a heading with nothing below it so far
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for number, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        first, end = token.map
        content = "\n".join(lines[first:end]).rstrip()
        if token.type == "heading_open" and len(content) <= MOST_HEADING:
            depth, title = int(token.tag[1]), " ".join(tokens[number + 1].content.split())
            if bare and max(above) >= depth:
                yield bare
            above = {level: name for level, name in above.items() if level < depth}
            bare = Block(heading_of(above), title, starts[first]) if any(map(str.isalnum, title)) else None
            above[depth] = title
        elif any(map(str.isalnum, content)):
            bare = None
            yield Block(heading_of(above), content, starts[first])
    if bare:
        yield bare


def heading_of(above: dict[int, str]) -> str:
    """The headings above a paragraph as one; one that names all before it stands alone."""
    titles = [title for _, title in sorted(above.items()) if title]
    kept: list[str] = []
    for title in titles:
        kept = [earlier for earlier in kept if f" {earlier} ".casefold() not in f" {title} ".casefold()]
        kept.append(title)
    return BETWEEN.join(kept)


def pieces_of(block: Block, room: int, overlap: int, count: CountTokens) -> Iterator[tuple[Block, int]]:
    """Yield parts of a paragraph that is too long, each of at most `room` tokens and ending at a word where it can."""
    words = _words(block.text, room, count)
    sizes = count([word for word, _ in words])
    start = 0
    while start < len(words):
        end, size = start, 0
        while end < len(words) and size + sizes[end] <= room:
            size += sizes[end]
            end += 1
        end = max(end, start + 1)
        first, last = words[start][1], words[end - 1][1] + len(words[end - 1][0])
        yield Block(block.heading, block.text[first:last].strip(), block.offset + first), min(size, room)
        if end == len(words):
            return
        back, repeated = end, 0
        while back - 1 > start and repeated + sizes[back - 1] <= overlap:
            repeated += sizes[back - 1]
            back -= 1
        start = back


def _words(text: str, room: int, count: CountTokens) -> list[tuple[str, int]]:
    """The words of a text with their places; what has no spaces and is longer than `room` tokens in pieces."""
    found, place = [], 0
    for word in text.split():
        place = text.index(word, place)
        longest = len(word) if len(word) <= room or count([word])[0] <= room else max(1, room // 2)
        found += [(word[i : i + longest], place + i) for i in range(0, len(word), longest)]
        place += len(word)
    return found


def passages_in(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the passages that `write_passages` wrote, one row each, in order."""
    return pq.read_table(folder / PASSAGES, columns=list(columns) if columns else None)


def first_passages(folder: Path, most: int, hidden: frozenset[str]) -> pa.Table:
    """Return at most so many of the first passages, without those of the documents `hidden`."""
    found: list[pa.RecordBatch] = []
    with pq.ParquetFile(folder / PASSAGES) as file:
        for batch in file.iter_batches(READ_AT_ONCE):
            shown = [number for number, name in enumerate(batch["document"].to_pylist()) if name not in hidden]
            found.append(batch.take(pa.array(shown, pa.int64())))
            if sum(map(len, found)) >= most:
                break
    return pa.Table.from_batches(found, SCHEMA).slice(0, most)


def passages_at(table: Any, numbers: Iterable[int]) -> list[Passage]:
    """Return the passages of those numbers."""
    return [Passage(**row) for row in table.take(pa.array(list(numbers), pa.int64())).to_pylist()]
