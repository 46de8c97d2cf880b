"""The chat templates that the base models of shipped recipes come with, as their tokenizers have them.

Those that trl ships are the models' own, letter by letter. The others are written after what the model's own makes of
a conversation: the same marks, the same date, the same refusals.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

# Zephyr's own form of turns, which end with the end-of-text token.
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Phi-4-mini's: tools stand in the system message, and the end of the text behind a whole conversation.
PHI_4_MINI = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content }}"
    "{% if message.role == 'system' and message.tools %}{{ '<|tool|>' + message.tools + '<|/tool|>' }}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}{{ '<|assistant|>' if add_generation_prompt else eos_token }}"
)
# SmolLM3's: a system message of its own with the date and whether it thinks; an answer without thoughts has empty ones.
SMOLLM3 = (
    "{%- set thinks = enable_thinking is not defined or enable_thinking %}"
    "{{- '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') }}"
    "{{- '\nReasoning Mode: ' + ('/think' if thinks else '/no_think') + '\n\n## Custom Instructions\n\n' }}"
    "{{- messages[0].content if messages[0].role == 'system' else 'You are a helpful AI assistant.' }}"
    "{{- '<|im_end|>\n' }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}"
    "{%- elif message.role == 'assistant' %}"
    "{{- '<|im_start|>assistant\n' + ('' if thinks else '<think>\n\n</think>\n') + message.content + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\n' + ('' if thinks else '<think>\n\n</think>\n') }}{%- endif %}"
)
# Mistral Small's: a system message with the date where there is none, and turns that have to alternate.
MISTRAL_SMALL = (
    "{{- bos_token }}{%- set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{{- '[SYSTEM_PROMPT]' }}{%- if messages[0].role == 'system' %}{{ messages[0].content }}"
    "{%- else %}{{ 'You are Mistral Small 3. The current date is ' + strftime_now('%Y-%m-%d') + '.' }}{%- endif %}"
    "{{- '[/SYSTEM_PROMPT]' }}"
    "{%- for message in turns %}"
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('After the optional system message, conversation roles must alternate.') }}{%- endif %}"
    "{%- if message.role == 'user' %}{{ '[INST]' + message.content + '[/INST]' }}"
    "{%- else %}{{ message.content + eos_token }}{%- endif %}{%- endfor %}"
)
MARK = re.compile(r"<\|/?[A-Za-z0-9_]+\|>|<(?:start|end)_of_turn>|\[/?[A-Z_]+\]|</?(?:think|tool_call|tool_response)>")


class Native(NamedTuple):
    """A tokenizer's chat template, and the token that ends a text; None for the tiny tokenizer's own."""

    text: str
    eos: str | None = None
    roles: tuple[str, ...] = ()
    """Marks that the template puts together from a turn's role."""

    @property
    def marks(self) -> list[str]:
        """What stands for one token in the template."""
        return sorted({*MARK.findall(self.text), *self.roles, *([self.eos] if self.eos else [])})


def of_trl(name: str) -> str:
    """The template of that name that trl ships."""
    (package,) = find_spec("trl").submodule_search_locations
    return (Path(package) / "chat_templates" / f"{name}.jinja").read_text()


# By the name of the recipe; others' tiny models have Zephyr's.
NATIVE: dict[str, Native] = {
    "llama-3.2-3b": Native(of_trl("llama3_2"), "<|eot_id|>"),
    "qwen3-4b-thinking": Native(of_trl("qwen3"), "<|im_end|>"),
    "qwen3-4b-tools": Native(of_trl("qwen3"), "<|im_end|>"),
    "qwen2.5-1.5b-tools": Native(of_trl("qwen2_5"), "<|im_end|>", ("<|endoftext|>",)),
    "gemma-3-1b": Native(of_trl("gemma3")),
    "smollm3-3b": Native(SMOLLM3, "<|im_end|>"),
    "phi-4-mini": Native(PHI_4_MINI, "<|endoftext|>", ("<|system|>", "<|user|>")),
    "gpt-oss-20b": Native(of_trl("gptoss"), "<|return|>"),
    "mistral-small-24b": Native(MISTRAL_SMALL),
}
