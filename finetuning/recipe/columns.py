"""What a format reads of a row beside its own columns, by the names that data sets give to such columns.

A column counts as one of them whatever its case and its signs: `System_Prompt`, `systemPrompt` and `system_prompt` are
one name.
"""

import re
from functools import lru_cache

# Each kind of column with the names that data sets have for it; where a row has several, the first one is read.
ALIASES: dict[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt", "system_message", "sys_prompt", "system_instruction", "developer"),
    "history": ("history", "chat_history", "conversation_history"),
    "context": ("context", "input", "contexts", "passage", "background"),
    "reasoning": (
        *("reasoning", "reasoning_content", "thinking", "cot", "complex_cot", "chain_of_thought", "rationale"),
        *("think", "thought", "thoughts", "reasoning_trace"),
    ),
    "tools": ("tools", "functions"),
}
# What each format reads of them. A conversation says by itself what came before, and what was thought about what.
OF_A_QUESTION = ("system", "history", "context", "reasoning", "tools")
OF_A_CONVERSATION = ("system", "tools")
# Where a row's answer stands among the documents of a recipe with `knowledge`: their name, and what is quoted of them.
OF_KNOWLEDGE = ("document", "evidence")
# A whole conversation whose last answer was judged, in place of a prompt and a completion.
JUDGED_CONVERSATIONS = ("messages", "conversations")
MORE_COLUMNS: dict[str, tuple[str, ...]] = {
    "messages": OF_A_CONVERSATION,
    "sharegpt": OF_A_CONVERSATION,
    "alpaca": OF_A_QUESTION,
    "prompt-completion": OF_A_QUESTION,
    "question-answer": OF_A_QUESTION,
    "ultrafeedback": OF_A_CONVERSATION,
    "preference": OF_A_CONVERSATION,
    "unpaired-preference": (*OF_A_CONVERSATION, *JUDGED_CONVERSATIONS),
    "text": (),
}
# Keys of a turn: whether it is learned, and what was thought before it.
TRAIN_KEYS = ("train", "weight", "loss", "trainable")
REASONING_KEYS = ALIASES["reasoning"]
# Columns and keys that say something of what is to be learned, beside those above.
MEANINGFUL = (
    *TRAIN_KEYS,
    *("weights", "sample_weight", "loss_weight", "training", "mask", "loss_mask", "label", "labels", "kto_tag"),
    *("loss_weights", "sample_weights", "desirable", "is_correct", "train_on_turn", "no_loss"),
    *("tool_schemas", "tool_schema", "tool_list", "tool_definitions", "function_list", "function_definitions"),
    *("function_call", "function_calls", "tool_calls", "tool_call", "documents", "passages", "attachments"),
    *("chat_template_kwargs", "train_detail", "masked", "is_training", "tool_plan", "refusal", "rejected_response"),
    *("image", "images", "audio", "audios", "video", "videos", "image_url", "input_audio", "files"),
)
# Of rows that hold one question, these are parts of it.
TO_BE_READ = ("document", "article", "paragraph", "paragraphs", "evidence", "schema", "ctx", "knowledge", "text")
OF_THE_QUESTION = (
    *("instruction", "instructions", "choices", "options", "solution", "solutions", "explanation"),
    *TO_BE_READ,
)
# What some write in a column of thoughts to say whether, or how long, the model is to think.
SETTINGS = {"on", "off", "yes", "no", "true", "false", "low", "medium", "high", "none", "auto", "minimal"}
# A name that has one of these words in it (`sql_context`, `deepseek_thinking_trajectory`) …
WORDS = {"context", "system", "history", "reasoning", "thinking", "cot", "tools", "image", "images", "audio", "video"}
# … carries meaning, unless it ends as a figure or a name of that: `context_length`, `system_id`.
FIGURES = {
    *("id", "ids", "token", "tokens", "len", "length", "count", "num", "score", "source", "type", "lang", "language"),
    *("model", "hash", "name", "effort", "category", "time", "date", "timestamp", "version", "fingerprint"),
}
COUNTS = {"num", "count", "number"}  # `num_tools`


def plain(name: str) -> str:
    """A name without case and signs, by which names are the same.

    >>> plain("System_Prompt"), plain("systemPrompt")
    ('systemprompt', 'systemprompt')
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def words_of(name: str) -> list[str]:
    """The words that a name is made of; a `non` belongs to what follows it.

    >>> words_of("non_preferredOutput2")
    ['nonpreferred', 'output']
    """
    lower = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return re.findall(r"[a-z]+", re.sub(r"(?<![a-z])non[_ -]+", "non", lower))


@lru_cache(maxsize=10_000)
def carries_meaning(name: str, *, of_a_question: bool = False) -> bool:
    """Whether a column or key of that name says something of what is to be learned.

    >>> [carries_meaning(name) for name in ("Weight", "sql_context", "id", "context_length")]
    [True, True, False, False]
    """
    if plain(name) in PLAIN_MEANINGFUL or (of_a_question and plain(name) in PLAIN_OF_THE_QUESTION):
        return True
    words = words_of(name)
    return bool(WORDS.intersection(words)) and words[-1] not in FIGURES and not COUNTS.intersection(words)


@lru_cache(maxsize=10_000)
def meaning_of(name: str) -> str | None:
    """Which of the kinds of ALIASES a column of that name is.

    >>> meaning_of("System_Prompt"), meaning_of("id")
    ('system', None)
    """
    return KINDS.get(plain(name))


KINDS = {plain(alias): kind for kind, aliases in ALIASES.items() for alias in aliases}
PLAIN_MEANINGFUL = {*KINDS, *map(plain, MEANINGFUL)}
PLAIN_OF_THE_QUESTION = {*map(plain, OF_THE_QUESTION)}
