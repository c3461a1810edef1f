"""What the package says, read from its source: every message that it logs, and every error that it makes.

``%s`` and what stands in braces become ``…``; the numbers of ``limits.py`` and texts that have a name are put in.
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
PROGRAMS: Final = {"cli", "__main__", "demo", "commands"}
"""Modules of the command line, which speaks to whoever has typed a command, and is documented with it."""
THE_LOG_ITSELF: Final = "rate_limited_log"

_PLACE: Final = "…"
_MESSAGE_POSITION: Final = {
    ("getLogger", "log"): 1,
    ("RateLimitedLog", "log"): 2,
    ("RateLimitedLog", "warning"): 1,
}
_LEVELS: Final = {"debug", "info", "warning", "error", "exception", "critical", "log"}


@dataclass(frozen=True, slots=True, order=True)
class Said:
    """One message: the module that says it, how (a level, or the name of an error), and its text."""

    module: str
    how: str
    text: str


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """The name and the syntax of every module but the programs."""
    paths = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    return tuple(
        (name, ast.parse(path.read_text("utf-8"), str(path)))
        for name, path in paths.items()
        if name.split("/")[0] not in PROGRAMS and not name.endswith(THE_LOG_ITSELF)
    )


@cache
def logged() -> list[Said]:
    """Every message that is logged."""
    return sorted(
        Said(module, level, text)
        for module, tree in modules()
        for call, logger in _log_calls(tree)
        for level, text in [_level_and_text(call, logger, tree)]
    )


@cache
def errors() -> list[Said]:
    """Every error that is made with a text of the module's own."""
    return sorted(
        {
            Said(module, _name(call.func), text)
            for module, tree in modules()
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and _is_error(_name(call.func)) and (text := _text_of_error(call, tree))
        }
    )


def attribute_docstrings(module: str, class_name: str) -> Iterator[tuple[str, str, object]]:
    """Each attribute of a class with the text below it, and what it is set to, if that is a constant."""
    tree = dict(modules())[module]
    (body,) = [node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == class_name]
    for attribute, text in pairwise(body):
        if isinstance(attribute, (ast.Assign, ast.AnnAssign)) and isinstance(text, ast.Expr):
            target = attribute.target if isinstance(attribute, ast.AnnAssign) else attribute.targets[0]
            value = attribute.value.value if isinstance(attribute.value, ast.Constant) else None
            yield ast.unparse(target), " ".join(ast.literal_eval(text.value).split()), value


def _log_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """The calls of what the module has made with ``logging.getLogger`` or ``RateLimitedLog``, with which of both."""
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
    method = _name(call.func)
    position = _MESSAGE_POSITION.get((logger, method), 0)
    level = next((each.attr for each in call.args if isinstance(each, ast.Attribute) and each.attr.isupper()), method)
    text = rendered(call.args[position], tree)
    return level.upper().replace("EXCEPTION", "ERROR"), re.sub(r"%[sdr]", _PLACE, text)


def _is_error(name: str) -> bool:
    return name.endswith("Error")


def _text_of_error(call: ast.Call, tree: ast.Module) -> str:
    """The first argument that is a sentence; an error's code is none."""
    texts = (rendered(argument, tree) for argument in call.args)
    return next((text.partition("\n")[0] for text in texts if " " in text), "")


def rendered(node: ast.expr, tree: ast.Module) -> str:
    """A text as it is written, with places for what is filled in; of a name, the longest text that it is given."""
    text = _PLACE
    match node:
        case ast.Constant(value=str(written)):
            text = written
        case ast.JoinedStr(values=parts):
            text = re.sub(rf"{_PLACE}(?:{_PLACE})+", _PLACE, "".join(rendered(part, tree) for part in parts))
        case ast.FormattedValue(value=ast.Name(id=name)) if name.isupper() and hasattr(limits, name):
            text = str(getattr(limits, name))
        case ast.FormattedValue(value=ast.Name(id=name)) if name.isupper():
            text = _assigned(name, tree)
        case ast.Name(id=name):
            text = _assigned(name, tree)
        case ast.BinOp(left=left):
            text = rendered(left, tree) + _PLACE
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
    return longest if longest.strip(_PLACE) else ""


def _name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]
