"""What clients send: OpenAI's schema of `/v1/chat/completions` and `/v1/completions`.

Lenient on fields that are not known (`user`, `metadata`, `store` …): they change no answer. Strict on those
that are: a wrong type or range is refused, and so is what would change the answer and is not to be had here
(log probabilities, penalties, forced tools), rather than ignored without a word.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.formats.base import Lost, RecordError
from artifacts.formats.tools import read_calls, read_tools
from train.serving.errors import ApiError, bad_request
from train.talk.engine import Message, Sampling

DEFAULT_TEMPERATURE = 1.0  # OpenAI's, of both endpoints, where a request names none
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's `max_tokens` of /v1/completions
MAX_CHOICES = 16
_MAX_STOPS = 16
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

#: Fields that change an answer in ways not to be had here, and the values that ask for nothing.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
}


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class _Request(BaseModel):
    """What both endpoints share. `top_k` and `repetition_penalty` are no part of OpenAI's schema; vLLM reads
    them under these names (clients send them as `extra_body`)."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = None  # None: the one that is served
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)  # -1 and 0: all
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, max_new_tokens: int | None, choice: int) -> Sampling:
        """Of the answer number `choice` of several: each has a seed of its own, so that they differ."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_new_tokens=max_new_tokens,
            temperature=DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k if self.top_k and self.top_k > 0 else None,
            repetition_penalty=self.repetition_penalty or 1.0,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
            stop=tuple(stop for stop in stops if stop),
        )

    def check(self) -> None:
        """Raises ApiError for what would change the answer and is not to be had here."""
        for name, value in (self.model_extra or {}).items():
            if name in _WITHOUT_EFFECT and value not in _WITHOUT_EFFECT[name]:
                raise bad_request(
                    f"{name} is not supported here: leave it out", name, "unsupported_parameter"
                )
        if isinstance(self.stop, list) and len(self.stop) > _MAX_STOPS:
            raise bad_request(f"stop holds {len(self.stop)} texts, more than {_MAX_STOPS}", "stop")
        if self.stream_options is not None and not self.stream:
            raise bad_request("stream_options is for streams: set stream", "stream_options")


class ChatRequest(_Request):
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Any] | None = None
    tool_choice: Literal["auto", "none"] | Any = None

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def check(self) -> None:
        super().check()
        if self.tool_choice not in (None, "auto", "none"):
            raise bad_request(
                "tool_choice can be auto or none: no tool can be forced",
                "tool_choice",
                "unsupported_parameter",
            )

    def conversation(self) -> list[Message]:
        """The messages in the shape that chat templates take. Raises ApiError."""
        return [_message(message, f"messages[{index}]") for index, message in enumerate(self.messages)]

    def declared_tools(self) -> list[Any] | None:
        """Raises ApiError."""
        if not self.tools or self.tool_choice == "none":
            return None
        try:
            return read_tools(self.tools, "tools")
        except RecordError as error:
            raise bad_request(str(error), "tools") from error


class CompletionRequest(_Request):
    prompt: str | list[Any]

    @property
    def max_new_tokens(self) -> int:
        return self.max_tokens or DEFAULT_COMPLETION_TOKENS

    def prompts(self) -> list[str]:
        """Raises ApiError: token ids are of no use to a client that does not have the tokenizer."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise bad_request("prompt must be a text, or a list of texts", "prompt")
        if len(prompts) * self.choices > MAX_CHOICES:
            raise bad_request(f"more than {MAX_CHOICES} answers in one request", "prompt")
        return prompts


AnyRequest = TypeVar("AnyRequest", bound=_Request)


def read(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """Raises ApiError with the first field at fault."""
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        raise _first_of(error) from error
    request.check()
    return request


def _first_of(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return bad_request(f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    where = [part for part in first["loc"] if not str(part).startswith(("list[", "str"))]
    if not where:
        return bad_request("the body is not a JSON object")
    name = str(where[0]) + "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in where[1:])
    why = first["msg"][:1].lower() + first["msg"][1:]
    code = "missing_required_parameter" if first["type"] == "missing" else None
    return bad_request(f"{name}: {why}", name, code)


def _message(message: dict[str, Any], where: str) -> Message:
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise bad_request(f"{where}.role: not one of {', '.join(_ROLES)}", f"{where}.role")
    calls = message.get("tool_calls")
    content = _text(message.get("content"), f"{where}.content", may_be_empty=bool(calls))
    made: Message = {"role": role, "content": content}
    if calls:
        try:
            made["tool_calls"] = read_calls(calls, f"{where}.tool_calls", Lost())
        except RecordError as error:
            raise bad_request(str(error), f"{where}.tool_calls") from error
    if isinstance(reasoning := message.get("reasoning_content"), str):
        made["reasoning_content"] = reasoning
    return made


def _text(content: object, where: str, *, may_be_empty: bool) -> str:
    """The text of a message: a string, or parts that are texts."""
    if isinstance(content, str):
        return content
    if content is None and may_be_empty:
        return ""
    if not isinstance(content, list):
        raise bad_request(f"{where}: not a text", where)
    texts = []
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise bad_request(f"{where}[{index}]: not a text; this model reads text alone", where)
        texts.append(part["text"])
    return "".join(texts)
