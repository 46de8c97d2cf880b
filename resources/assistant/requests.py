"""What may be asked over HTTP, in the words of OpenAI's chat completions.

What would change an answer and is not done here is refused by name; what would not is taken and left alone.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from finetuning.assistant.assistant import Asking
from finetuning.assistant.conversations import BadRequest
from finetuning.chat.segments import Conversation
from finetuning.dataset.turns import Message

MOST_MESSAGES, MOST_TOOLS, MOST_STOPS = 1_000, 128, 4
# Fields of OpenAI's that ask for something that is not done here, and the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "modalities": (["text"],),
}
# Those that change no answer.
LEFT_ALONE = (
    *("user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key"),
    *("reasoning_effort", "verbosity"),
)


class Part(BaseModel):
    """A part of a message that is text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class Function(BaseModel):
    """The function of a call: its name, and its arguments as JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    arguments: str | dict[str, JsonValue]


class ToolCall(BaseModel):
    """A call of a tool in an earlier answer."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str | None = None
    type: Literal["function"] = "function"
    function: Function


class Turn(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def as_message(self) -> Message:
        """Return it as the rows of the project have it."""
        parts = self.content or ""
        content = parts if isinstance(parts, str) else "\n".join(part.text for part in parts)
        message: Message = {"role": "system" if self.role == "developer" else self.role, "content": content}
        if self.tool_calls:
            message["tool_calls"] = [_as_call(call) for call in self.tool_calls]
        if self.reasoning_content and self.role == "assistant":
            message["reasoning_content"] = self.reasoning_content
        if self.role == "tool":
            message |= {key: value for key in ("name", "tool_call_id") if (value := getattr(self, key)) is not None}
        return message


class StreamOptions(BaseModel):
    """Whether the last chunk of a stream tells the number of tokens."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A conversation, who is to answer it, and how."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    messages: Annotated[list[Turn], Field(min_length=1, max_length=MOST_MESSAGES)]
    tools: Annotated[list[JsonValue], Field(max_length=MOST_TOOLS)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("stop")
    @classmethod
    def _require_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        texts = [stop] if isinstance(stop, str) else stop or []
        if len(texts) > MOST_STOPS or not all(texts):
            raise ValueError(f"at most {MOST_STOPS} texts, none of them empty")
        return stop

    @property
    def how(self) -> Asking:
        """Return how the conversation is to be answered."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        most = self.max_completion_tokens or self.max_tokens
        return Asking(most, self.temperature or 0.0, self.top_p or 1.0, self.seed, stop)

    @property
    def conversation(self) -> Conversation:
        """Return the messages and tools as the project's rows have them."""
        return Conversation([turn.as_message() for turn in self.messages], self.tools or None)


def request_of(body: bytes) -> ChatRequest:
    """Read the body of a request.

    Raises:
        BadRequest: it is no JSON, or asks for what is not done here; the text names each such field.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(data, dict):
        raise BadRequest(f"the body is a {type(data).__name__}, and has to be an object with model and messages")
    for name, allowed in NEUTRAL.items():
        value = data.pop(name, None)
        if value is not None and value not in allowed:
            raise BadRequest(f"{name}: {str(value)[:100]} is not done here; leave it out")
        if name == "tool_choice" and value == "none":
            data.pop("tools", None)
    for name in LEFT_ALONE:
        data.pop(name, None)
    try:
        return ChatRequest.model_validate_json(json.dumps(data))
    except ValidationError as error:
        told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5]]
        raise BadRequest("; ".join(told)) from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


def _as_call(call: ToolCall) -> dict[str, JsonValue]:
    """Return a call with its arguments as values.

    Raises:
        BadRequest: they are no JSON object.
    """
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            raise BadRequest(f"messages: the arguments of a call of {call.function.name} are no JSON object")
    function = {"name": call.function.name, "arguments": arguments}
    return {**({"id": call.id} if call.id else {}), "type": "function", "function": function}
