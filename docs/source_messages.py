"""The texts of all log messages and exceptions of the package, extracted from its source.

Placeholders (``%s``, ``{...}``) become ``…``, except for named texts and the numbers in ``limits.py``.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import otel_cloudwatch_flask
from otel_cloudwatch_flask import limits

PACKAGE: Final = Path(otel_cloudwatch_flask.__file__).parent
PROGRAMS: Final = {"cli", "__main__", "demo", "commands", "testing"}
"""Modules of the command line, whose output is documented with the commands, and tools for tests."""
RATE_LIMITED_LOG: Final = "rate_limited_log"

_PLACEHOLDER: Final = "…"
_MESSAGE_POSITION: Final = {"getLogger": 0, "RateLimitedLog": 1}
_LEVELS: Final = {"debug", "info", "warning", "error", "exception", "critical"}


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """A text and its module. ``how`` is the log level or the exception class."""

    module: str
    how: str
    text: str


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """Return the name and syntax tree of every module except those of ``PROGRAMS``."""
    paths = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    return tuple(
        (name, ast.parse(path.read_text("utf-8"), str(path)))
        for name, path in paths.items()
        if name.split("/")[0] not in PROGRAMS and not name.endswith(RATE_LIMITED_LOG)
    )


@cache
def logged() -> list[Message]:
    """Return all log messages."""
    return sorted(
        Message(module, level, text)
        for module, tree in modules()
        for call, logger in _log_calls(tree)
        for level, text in [_level_and_text(call, logger, tree)]
    )


@cache
def errors() -> list[Message]:
    """Return the texts of all exceptions that are created with a literal text."""
    return sorted(
        {
            Message(module, _name(call.func), text)
            for module, tree in modules()
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and _is_error(_name(call.func)) and (text := _text_of_error(call, tree))
        }
    )


def attribute_docstrings(module: str, class_name: str) -> Iterator[tuple[str, str, object]]:
    """Yield each attribute of a class with its docstring, and its value if that is a constant."""
    tree = dict(modules())[module]
    (body,) = [node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == class_name]
    for attribute, text in pairwise(body):
        if isinstance(attribute, (ast.Assign, ast.AnnAssign)) and isinstance(text, ast.Expr):
            target = attribute.target if isinstance(attribute, ast.AnnAssign) else attribute.targets[0]
            value = attribute.value.value if isinstance(attribute.value, ast.Constant) else None
            yield ast.unparse(target), " ".join(ast.literal_eval(text.value).split()), value


def _log_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Yield each log call of a module, and what created its logger: ``getLogger`` or ``RateLimitedLog``."""
    loggers = {
        ast.unparse(target): _name(node.value.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if _name(node.value.func) in {"getLogger", "RateLimitedLog"}
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS:
            logger = loggers.get(ast.unparse(node.func.value))
            if logger:
                yield node, logger


def _level_and_text(call: ast.Call, logger: str, tree: ast.Module) -> tuple[str, str]:
    text = rendered(call.args[_MESSAGE_POSITION[logger]], tree)
    return _name(call.func).upper().replace("EXCEPTION", "ERROR"), re.sub(r"%(?:\.\d+f|[sdr])", _PLACEHOLDER, text)


def _is_error(name: str) -> bool:
    return name.endswith("Error")


def _text_of_error(call: ast.Call, tree: ast.Module) -> str:
    """Return the first argument that contains a space, since error codes contain none."""
    texts = (rendered(argument, tree) for argument in call.args)
    return next((text.partition("\n")[0] for text in texts if " " in text and re.search(r"\w", text)), "")


def rendered(node: ast.expr, tree: ast.Module) -> str:
    """Return a text with placeholders for inserted values. For a name, this is the longest text assigned to it."""
    text = _PLACEHOLDER
    match node:
        case ast.Constant(value=str(written)):
            text = written
        case ast.JoinedStr(values=parts):
            text = re.sub(
                rf"{_PLACEHOLDER}(?:{_PLACEHOLDER})+", _PLACEHOLDER, "".join(rendered(part, tree) for part in parts)
            )
        case ast.FormattedValue(value=ast.Name(id=name)) if name.isupper() and hasattr(limits, name):
            text = str(getattr(limits, name))
        case ast.FormattedValue(value=ast.Name(id=name)) if name.isupper():
            text = _assigned(name, tree) or _PLACEHOLDER
        case ast.Name(id=name):
            text = _assigned(name, tree)
        case ast.BinOp(left=left):
            text = rendered(left, tree) + _PLACEHOLDER
        case ast.Call(func=ast.Attribute(value=value)):
            text = rendered(value, tree)
    return text


def _assigned(name: str, tree: ast.Module) -> str:
    texts = [
        rendered(node.value, tree)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and isinstance(node.value, (ast.Constant, ast.JoinedStr, ast.BinOp, ast.Call))
        and name in {ast.unparse(each) for each in (node.targets if isinstance(node, ast.Assign) else [node.target])}
    ]
    longest = max(texts, key=len, default="")
    return longest if longest.strip(_PLACEHOLDER) else ""


def _name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]
