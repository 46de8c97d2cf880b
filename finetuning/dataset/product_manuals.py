"""Makes manuals of products that do not exist, and questions that only they answer.

No model has read them: what it says of them it found in a passage, or made up. Products of one family differ in their
last letter and number alone, so that the passages found for one speak of others too.

{"question": "Which button resets the Kelvane B7?", "answer": "red", "document": "kelvane-b7.md",
 "evidence": "press the red button for 12 seconds"}
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

# Part of what data and documents have as their revision: raise it whenever the same seed gives other ones.
VERSION = 1

# Products are in families of one name, which only a letter and a number tell apart.
FAMILIES, IN_FAMILY, HELD_OUT = 40, 5, 40
PRODUCTS = FAMILIES * IN_FAMILY
SEED = 20
UNSAID = "The documents do not say."
# So many of the questions are about what a manual leaves out.
UNANSWERABLE = 0.18
SYLLABLES = ("tor", "vane", "kel", "mir", "dux", "pra", "lon", "sef", "ari", "bex", "nol", "tum", "wex", "zor", "fal")
KINDS = ("kettle", "heater", "lamp", "drill", "printer", "router", "camera", "pump", "mixer", "toaster", "radio")
COLORS = ("red", "blue", "green", "white", "yellow", "black", "orange", "grey")
TOWNS = ("Lisbon", "Porto", "Graz", "Turku", "Malmo", "Bruges", "Cork", "Split", "Tartu", "Liege", "Bergen")
MATERIALS = ("steel", "copper", "ceramic", "glass", "bamboo", "nylon", "brass", "titanium")
CAUSES = (
    *("the lid is open", "the filter is blocked", "the battery is low", "the motor is too hot", "the fan has stopped"),
    *("no water is left", "the sensor is dirty", "the cable is loose"),
)


@dataclass(frozen=True)
class Fact:
    """One thing that a manual says: the sentence, where `{…}` stand for the product's own, and what asks for it."""

    section: str
    sentence: str
    question: str
    answer: str


FACTS = (
    Fact("Overview", "The {name} is a {kind} that is made in {town}.", "Where is the {name} made?", "{town}"),
    Fact("Overview", "Its housing is made of {material}.", "What is the housing of the {name} made of?", "{material}"),
    Fact("Overview", "It weighs {weight} kg.", "How many kg does the {name} weigh?", "{weight}"),
    Fact(
        "Reset",
        "To go back to the settings of the factory, press the {color} button.",
        "Which button resets the {name}?",
        "{color}",
    ),
    Fact(
        "Reset",
        "Keep it down for {hold} seconds.",
        "For how many seconds is the button of the {name} held to reset it?",
        "{hold}",
    ),
    Fact(
        "Errors",
        "When the display shows {error}, {cause}. Put this right and start again.",
        "What is wrong when the {name} shows {error}?",
        "{cause}",
    ),
    Fact(
        "Care",
        "Change the filter every {months} months.",
        "After how many months does the {name} need a new filter?",
        "{months}",
    ),
    Fact(
        "Care",
        "The spare filter has the number {part}.",
        "What number does the spare filter of the {name} have?",
        "{part}",
    ),
    Fact(
        "Limits",
        "Do not use it above {degrees} degrees.",
        "Up to how many degrees may the {name} be used?",
        "{degrees}",
    ),
    Fact(
        "Limits",
        "On one charge it works for {hours} hours.",
        "How many hours does the {name} work on one charge?",
        "{hours}",
    ),
    Fact(
        "Guarantee",
        "The guarantee lasts {guarantee} months.",
        "How many months of guarantee has the {name}?",
        "{guarantee}",
    ),
    Fact("Guarantee", "Damage by {harm} is not covered.", "Which damage is not covered for the {name}?", "{harm}"),
)
SECTIONS = tuple(dict.fromkeys(fact.section for fact in FACTS))
# What every manual says beside them, so that sections are alike and not all of one fact.
FILLING = {
    "Overview": "It comes with a cable and this manual.",
    "Reset": "The clock is kept.",
    "Errors": "The message goes away by itself after a minute.",
    "Care": "Clean the outside with a damp cloth and never with solvents.",
    "Limits": "Keep it away from children.",
    "Guarantee": "It begins on the day of purchase, so keep the receipt.",
}
HARMS = ("water", "frost", "dust", "lightning", "salt", "insects", "smoke", "a fall")


@dataclass(frozen=True)
class Product:
    """A product with all that may be said of it, and the one section that its manual leaves out."""

    own: Mapping[str, Any]
    missing: str

    @property
    def document(self) -> str:
        """The name of its manual."""
        return f"{self.own['name'].lower().replace(' ', '-')}.md"

    def sentence(self, fact: Fact) -> str:
        """What the manual says, word for word."""
        return fact.sentence.format_map(self.own)


def manuals() -> Iterator[tuple[str, str]]:
    """Yield the name and the Markdown of each manual."""
    for product in _products():
        parts = [f"# {product.own['name']} {product.own['kind']}"]
        for section in SECTIONS:
            if section != product.missing:
                said = [product.sentence(fact) for fact in FACTS if fact.section == section]
                parts += [f"## {section} of the {product.own['name']}", " ".join([*said, FILLING[section]])]
        yield product.document, "\n\n".join(parts) + "\n"


def questions(split: str = "train") -> int:
    """How many questions there are in a split."""
    return len(FACTS) * (HELD_OUT if split == "test" else PRODUCTS - HELD_OUT)


def generate(rows: int, seed: int, split: str = "train") -> Iterator[dict[str, str | None]]:
    """Yield at most `rows` questions, no two alike; the same seed gives the same ones in the same order.

    Args:
        split: `train` asks about 160 of the products, `test` about the 40 others.
    """
    random = Random(seed)
    products = _products()[HELD_OUT:] if split == "train" else _products()[:HELD_OUT]
    asked = [(product, fact) for product in products for fact in FACTS]
    random.shuffle(asked)
    said = [one for one in asked if one[1].section != one[0].missing]
    unsaid = [one for one in asked if one[1].section == one[0].missing]
    for _ in range(min(rows, len(asked))):
        from_unsaid = unsaid and (not said or random.random() < UNANSWERABLE)
        yield _row(*(unsaid if from_unsaid else said).pop())


def _row(product: Product, fact: Fact) -> dict[str, str | None]:
    is_said = fact.section != product.missing
    return {
        "question": fact.question.format_map(product.own),
        "answer": fact.answer.format_map(product.own) if is_said else UNSAID,
        "document": product.document,
        "evidence": product.sentence(fact) if is_said else None,
    }


@cache
def _products() -> list[Product]:
    """All products, family by family."""
    random, products = Random(SEED), dict[str, Product]()
    families = random.sample([one + other for one in SYLLABLES for other in SYLLABLES if one != other], FAMILIES)
    kinds = dict.fromkeys(families, "")
    while len(products) < PRODUCTS:
        family = families[len(products) // IN_FAMILY]
        kinds[family] = kinds[family] or random.choice(KINDS)
        name = f"{family.capitalize()} {random.choice('ABCDEFGHKLMN')}{random.randint(2, 99)}"
        own = {
            "name": name,
            "kind": kinds[family],
            "town": random.choice(TOWNS),
            "material": random.choice(MATERIALS),
            "weight": random.randint(3, 95) / 10,
            "color": random.choice(COLORS),
            "hold": random.randint(3, 29),
            "error": f"E{random.randint(10, 99)}",
            "cause": random.choice(CAUSES),
            "months": random.randint(2, 24),
            "part": f"{random.choice('QXZJ')}{random.randint(1000, 9999)}",
            "degrees": random.randint(41, 98),
            "hours": random.randint(2, 60),
            "guarantee": random.randint(7, 71),
            "harm": random.choice(HARMS),
        }
        products.setdefault(name, Product(own, random.choice(SECTIONS)))
    return list(products.values())
