"""The table of what fits on which GPU."""

from benchmarks.fit_table import BEGIN, END, LENGTHS, PAGE, SHAPES, SIZES, need, shown
from finetuning.recipe.loading import load


def lines() -> dict[tuple[str, int], list[list[str]]]:
    """Of the page: by recipe and length, for each GPU the rows with activations kept, and computed twice."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {(name.split("`")[1], int(length)): [cell.split(" / ") for cell in rest] for name, length, *rest in cells}


def test_the_page_has_what_is_predicted_now():
    name, length = "gemma-2b", 512
    kind, shape = SHAPES[name]
    found = need(load(name), kind(**shape), length, checkpointing=True)
    expected = [shown(found.rows(size)) for size in SIZES]
    assert [cell[1] for cell in lines()[name, length]] == expected, "run `python -m benchmarks.fit_table --write`"


def test_more_memory_takes_more_rows_and_so_does_computing_activations_twice():
    table = lines()
    assert set(table) == {(name, length) for name in SHAPES for length in LENGTHS}
    for cells in table.values():
        counts = [[int(rows.rstrip("+").replace("–", "0")) for rows in cell] for cell in cells]
        assert counts == sorted(counts) and all(kept <= recomputed for kept, recomputed in counts)
        assert [recomputed for _, recomputed in counts] == sorted(recomputed for _, recomputed in counts)


def test_where_not_one_row_fits_there_is_a_dash():
    assert [shown(rows) for rows in (0, 1, 63, 64)] == ["–", "1", "63", "64+"]
