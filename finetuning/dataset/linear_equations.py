"""Makes linear equations with a worked solution: training data that needs no network.

{"Problem": "Solve for y: 14 - 4 = 4 - 1y + 3y .", "Solution": "10 = 4 + 2y\\n6 = 2y\\n#### 3"}
"""

from collections.abc import Iterator
from random import Random

# Part of what a data set's revision is: raise it whenever the same seed gives other rows.
VERSION = 1

VARIABLES = "xyzabnt"
BARE = 0.4  # share of solutions of the split `mixed` that say the value alone
COEFFICIENTS = [number for number in range(-3, 4) if number]


def generate(rows: int, seed: int, split: str = "train") -> Iterator[dict[str, str]]:
    """`rows` problems with their solutions, no two alike; the same seed gives the same rows in the same order.

    Of the split `mixed` a share of `BARE` solutions, drawn, is the last line alone; the problems are the same.

    Numbers are small enough for a small model to learn the arithmetic: the unknown is in [1, 9], its coefficients add
    up to at most 3, and no number is negative before the equals sign. Some 50,000 different problems exist.
    """
    random, worked = Random(seed), Random(seed + 1)
    seen: set[str] = set()
    while len(seen) < rows:
        row = _equation(random)
        if row["Problem"] not in seen:
            seen.add(row["Problem"])
            if split == "mixed" and worked.random() < BARE:
                row["Solution"] = row["Solution"].rpartition("\n")[2]
            yield row


def _equation(random: Random) -> dict[str, str]:
    variable, answer = random.choice(VARIABLES), random.randint(1, 9)
    slope, constant = random.randint(1, 3), random.randint(0, 5)
    first = random.choice([number for number in COEFFICIENTS if number != slope])
    left = slope * answer + constant
    operand = random.choice([number for number in range(-5, 6) if number and number <= left])
    problem = (
        f"{left - operand} {_signed(operand)} = "
        f"{constant} {_signed(first)}{variable} {_signed(slope - first)}{variable} ."
    )
    steps = [
        f"{left} = {constant} + {slope}{variable}",
        f"{left - constant} = {slope}{variable}",
        f"#### {answer}",
    ]
    return {"Problem": f"Solve for {variable}: {problem}", "Solution": "\n".join(steps)}


def _signed(number: int) -> str:
    """`number` as a term that follows another one: "+ 9" or "- 1"."""
    return f"{'-' if number < 0 else '+'} {abs(number)}"
