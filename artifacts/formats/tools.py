"""Tools and calls of them, brought to the one shape that chat templates take."""

from __future__ import annotations

import json
from typing import Any

from artifacts.formats.base import Lost, RecordError, describe


def read_tools(value: object, name: str) -> list[dict[str, Any]]:
    """A record's tools, a list or the JSON of one, each `{"type": "function", "function": {…}}` or the
    function alone. Raises RecordError."""
    if isinstance(value, str):
        value = _parsed(value, name)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RecordError(f"{name} is {describe(value)}, not a list of tools")
    return [_tool(tool, f"{name}[{index}]") for index, tool in enumerate(value)]


def _tool(tool: object, where: str) -> dict[str, Any]:
    if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
        if tool.get("type", "function") != "function":
            raise RecordError(f"{where}: type is {describe(tool['type'])}, not 'function'")
        function = tool["function"]
    else:
        function = tool
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RecordError(f"{where} has no function name")
    return {"type": "function", "function": function}


def read_calls(value: object, name: str, lost: Lost) -> list[dict[str, Any]]:
    """Calls as OpenAI writes them, or `{"name", "arguments"}` alone; one, a list, or the JSON of either.
    Arguments become an object. Raises RecordError."""
    if isinstance(value, str):
        value = _parsed(value, name)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise RecordError(f"{name} is {describe(value)}, not a list of calls")
    return [_call(call, f"{name}[{index}]", lost) for index, call in enumerate(value)]


def _call(call: object, where: str, lost: Lost) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) and "function" in call else call
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RecordError(f"{where} has no function name")
    if isinstance(call, dict) and function is not call:
        lost.update(f"tool_calls[].{key}" for key in call if key not in ("type", "function"))
    lost.update(f"tool_calls[].function.{key}" for key in function if key not in _CALL)
    return {
        "type": "function",
        "function": {"name": function["name"], "arguments": _arguments(function, where)},
    }


_CALL = ("name", "arguments", "parameters")


def _arguments(function: dict[str, Any], where: str) -> dict[str, Any]:
    value = function.get("arguments", function.get("parameters"))
    if isinstance(value, str):
        value = _parsed(value, f"{where}: arguments") if value.strip() else {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecordError(f"{where}: arguments is {describe(value)}, not an object")
    return value


def _parsed(value: str, name: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise RecordError(f"{name} is text that is not JSON: {value[:30]!r}") from None
