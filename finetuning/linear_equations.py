"""Makes linear equations with a worked solution: training data that needs no network.

{"Problem": "Solve for y: 10 - 4 = -2 - 1y + 9y .", "Solution": "6 = -2 + 8y\\n8 = 8y\\ny = 8 / 8\\n#### 1"}
"""

from collections.abc import Iterator
from random import Random

# Part of what a data set's revision is: raise it whenever the same seed gives other rows.
VERSION = 1

VARIABLES = "xyzabnt"
COEFFICIENTS = [number for number in range(-9, 10) if number]


def generate(rows: int, seed: int) -> Iterator[dict[str, str]]:
    """`rows` problems with their solutions, no two alike; the same seed gives the same rows in the same order.

    Some 70 million different problems exist; each holds one unknown, whose value is a whole number in [-10, 10].
    """
    random = Random(seed)
    seen: set[str] = set()
    while len(seen) < rows:
        row = _equation(random)
        if row["Problem"] not in seen:
            seen.add(row["Problem"])
            yield row


def _equation(random: Random) -> dict[str, str]:
    variable, answer = random.choice(VARIABLES), random.randint(-10, 10)
    first, second = random.choice(COEFFICIENTS), random.choice(COEFFICIENTS)
    while first + second == 0:
        second = random.choice(COEFFICIENTS)
    slope, constant = first + second, random.randint(-20, 20)
    left = slope * answer + constant
    sign, operand = random.choice([-1, 1]), random.randint(1, 20)
    problem = (
        f"{left - sign * operand} {_signed(sign * operand)} = "
        f"{constant} {_signed(first)}{variable} {_signed(second)}{variable} ."
    )
    steps = [
        f"{left} = {constant} {_signed(slope)}{variable}",
        f"{left - constant} = {slope}{variable}",
        f"{variable} = {left - constant} / {slope}",
        f"#### {answer}",
    ]
    return {"Problem": f"Solve for {variable}: {problem}", "Solution": "\n".join(steps)}


def _signed(number: int) -> str:
    """`number` as a term that follows another one: "+ 9" or "- 1"."""
    return f"{'-' if number < 0 else '+'} {abs(number)}"
