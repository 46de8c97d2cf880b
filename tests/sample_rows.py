"""Rows like those of the public data sets that recipes to copy name: the same columns, other words.

>>> rows_like("openai/gsm8k", 1)[0].keys()
dict_keys(['question', 'answer'])
"""

import json
import random
from collections.abc import Callable
from typing import Any

WORDS = (
    "apple boat candle door evening forest garden hill island journey kettle lamp meadow needle orange paper quilt "
    "river stone table umbrella valley window yard zebra bread cloud drum eagle flute glass horse iron jacket"
)
TOOLS = [
    {
        "name": "get_weather",
        "description": "Says what the weather is",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    }
]
Words = Callable[[int], str]


def no_robots(words: Words) -> dict[str, Any]:
    turns = [{"role": "user", "content": words(9)}, {"role": "assistant", "content": words(6)}]
    return {"prompt": turns[0]["content"], "prompt_id": words(1), "messages": turns, "category": "Open QA"}


def customer_support(words: Words) -> dict[str, Any]:
    told = {"category": "ORDER", "intent": "cancel_order"}
    return {"flags": "B", "instruction": words(9), **told, "response": f"{words(5)} {{{{Order Number}}}}."}


def gsm8k(words: Words) -> dict[str, Any]:
    return {"question": f"{words(9)}?", "answer": f"{words(3)} 2+3 = <<2+3=5>>5.\n#### 5"}


def smoltalk(words: Words) -> dict[str, Any]:
    turns = [{"role": role, "content": words(7)} for role in ("user", "assistant")]
    return {"messages": turns, "source": "smol-magpie-ultra-short"}


def medical_reasoning(words: Words) -> dict[str, Any]:
    return {"Question": f"{words(9)}?", "Complex_CoT": f"Let me think. {words(8)}.", "Response": f"{words(6)}."}


def python_alpaca(words: Words) -> dict[str, Any]:
    name = words(1)
    code = f"```python\ndef {name}():\n    return {words(3).split()}\n\n\nassert len({name}()) == 3\n```"
    return {"instruction": f"Write a function {name}: {words(6)}.", "input": "", "output": code}


def glaive_toolcall(words: Words) -> dict[str, Any]:
    place = words(1)
    turns = [
        ("human", f"{words(8)}?"),
        ("function_call", json.dumps({"name": "get_weather", "arguments": {"place": place}})),
        ("observation", json.dumps({"place": place, "weather": words(1)})),
        ("gpt", words(6)),
    ]
    return {"conversations": [{"from": who, "value": value} for who, value in turns], "tools": json.dumps(TOOLS)}


LIKE: dict[str, Callable[[Words], dict[str, Any]]] = {
    "HuggingFaceH4/no_robots": no_robots,
    "HuggingFaceTB/smol-smoltalk": smoltalk,
    "FreedomIntelligence/medical-o1-reasoning-SFT": medical_reasoning,
    "Vezora/Tested-143k-Python-Alpaca": python_alpaca,
    "bitext/Bitext-customer-support-llm-chatbot-training-dataset": customer_support,
    "llamafactory/glaive_toolcall_en": glaive_toolcall,
    "openai/gsm8k": gsm8k,
}


def rows_like(hub: str, count: int) -> list[dict[str, Any]]:
    """So many rows of other words each, the same ones each time."""
    draw, words = random.Random(0), WORDS.split()
    return [LIKE[hub](lambda length: " ".join(draw.choices(words, k=length))) for _ in range(count)]
