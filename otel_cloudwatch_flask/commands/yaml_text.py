"""Plain data as YAML 1.1: mappings, lists, texts, numbers and booleans. Pure.

It needs no library at run time; the tests read it back with one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, Union

Plain: TypeAlias = Union["Mapping[str, Plain]", "Sequence[Plain]", str, int, float, bool]

# What begins with a letter and has nothing special in it is the same without quotes, but for words with a meaning.
_UNQUOTED: Final = re.compile(r"[A-Za-z][A-Za-z0-9_/.-]*(::?[A-Za-z0-9_/.-]+)*")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null", "inf", "nan"})
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\"}


def as_yaml(value: Mapping[str, Plain]) -> str:
    """The mapping as a YAML document; keys have up to 60 characters, as YAML bounds them when they are escaped.

    >>> print(as_yaml({"Type": "AWS::SNS::Topic", "Tags": ["on", 1.5, {"Key": "a b"}]}), end="")
    Type: AWS::SNS::Topic
    Tags:
      - "on"
      - 1.5
      - Key: "a b"
    """
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Plain) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, member in value.items():
            yield from _member(f"{_text(key)}:", member)
    elif isinstance(value, Sequence) and value and not isinstance(value, str):
        for item in value:
            yield from _item(list(_lines(item)))
    else:
        yield _scalar(value)


def _member(name: str, member: Plain) -> Iterator[str]:
    lines = list(_lines(member))
    if isinstance(member, (Mapping, list, tuple)) and member:
        yield name
        yield from (f"  {line}" for line in lines)
    else:
        yield f"{name} {lines[0]}"


def _item(lines: Sequence[str]) -> Iterator[str]:
    yield f"- {lines[0]}"
    yield from (f"  {line}" for line in lines[1:])


def _scalar(value: Plain) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float)):
        mantissa, exponent, power = repr(value).partition("e")
        # Without a point, YAML 1.1 takes what has an exponent for a text.
        return f"{mantissa}.0e{power}" if exponent and "." not in mantissa else repr(value)
    return "{}" if isinstance(value, Mapping) else "[]"


def _text(text: str) -> str:
    if _UNQUOTED.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character.isascii() and character.isprintable():
        return _ESCAPES.get(character, character)
    return f"\\U{ord(character):08x}"
