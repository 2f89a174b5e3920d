"""From arguments to a typed dataclass, through tyro; whatever is wrong becomes one line."""

import dataclasses
import io
import itertools
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import AvoidSubcommands

from scorefield.errors import UserError

T = TypeVar("T")
SHORT = {"--skip-bad": "--reading.skip-bad"}
"""flags known by a shorter name, too"""


def parse(
    command: type[T], arguments: Sequence[str], *, prog: str, default: T | None = None, description: str | None = None
) -> T:
    """The command line as an instance of the dataclass `command`, or of one of a union's.

    Raises:
        UserError: anything wrong with `arguments`, in one line.
        SystemExit: with code 0, after `--help` or a completion script was printed.
    """
    captured = io.StringIO()
    try:
        with redirect_stderr(captured):
            return tyro.cli(
                command,
                args=[SHORT.get(token, token) for token in arguments],
                prog=prog,
                default=tyro.MISSING_NONPROP if default is None else default,
                description=description,
                config=(AvoidSubcommands,),
            )
    except ValueError as error:  # a dataclass refused what it was given
        raise UserError(str(error)) from error
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{one_line(captured.getvalue())} (see {prog} --help)") from None


def one_line(box: str) -> str:
    """The library's message without its frame (drawn, or spaces where the terminal has no line characters), title and hints."""
    rows = [row.strip("╭╮╰╯│").rstrip() for row in box.splitlines()[1:]]
    rows = [*itertools.dropwhile(is_rule, rows)]
    message = textwrap.dedent("\n".join(itertools.takewhile(lambda row: not is_rule(row), rows)))
    if message.startswith("Missing from"):  # names of arguments, each above its indented help text
        message = "missing: " + ", ".join(re.findall("^ {4}([^ ].*)", message, re.MULTILINE))
    return re.sub(r"^Error parsing ([\w.]+: )", r"\1", " ".join(message.split())).rstrip(".")


def is_rule(row: str) -> bool:
    return not row.strip("─- ")


class Given:
    """Which arguments were given, known before the parser and its defaults exist.

    How many values a flag takes depends on its type alone, so that flags and positional arguments can be told apart in
    any order. Whether flags and values are valid is left to the parser.
    """

    def __init__(self, command: type, arguments: Sequence[str]) -> None:
        counts = {name: count for kind in dataclasses_in(command) for name, count in values_taken(kind)}
        self.positional: list[str] = []
        self.flags: dict[str, list[str]] = {}
        room = 0.0
        for token in arguments:
            if token.startswith("--"):
                flag, equals, value = token.partition("=")
                flag = flag.replace("_", "-")
                values = self.flags[flag] = [value] if equals else []
                name = flag.removeprefix("--").rpartition(".")[2].removeprefix("no-")
                room = counts.get(name, 1) - len(values)
            elif room > 0:
                values.append(token)
                room -= 1
            else:
                self.positional.append(token)

    def __contains__(self, flag: str) -> bool:
        return flag in self.flags

    def value(self, flag: str) -> str | None:
        """The first value of a flag, None if it has none."""
        return next(iter(self.flags.get(flag, [])), None)


def dataclasses_in(kind: type) -> Iterator[type]:
    """A dataclass and all in its fields, every member of a union among them."""
    yield kind
    for hint in get_type_hints(kind).values():
        for nested in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(nested):
                yield from dataclasses_in(nested)  # type: ignore[arg-type]


def values_taken(kind: type) -> Iterator[tuple[str, float]]:
    """The flags of a dataclass's own fields that do not take exactly one value: switches none, tuples several."""
    for name, hint in get_type_hints(kind).items():
        if hint is bool:
            yield name.replace("_", "-"), 0
        elif get_origin(hint) is tuple:
            values = get_args(hint)
            yield name.replace("_", "-"), math.inf if Ellipsis in values else len(values)


def with_kinds(config: Any, given: Given, prefix: str = "--") -> Any:
    """`config` with each union's member replaced by the one that `--….kind NAME` asks for, so that its flags exist.

    Raises:
        UserError: no member has that kind.
    """
    changes: dict[str, Any] = {}
    for name, hint in get_type_hints(type(config)).items():
        value, path = getattr(config, name), f"{prefix}{name.replace('_', '-')}."
        if get_origin(hint) in (Union, UnionType) and all(dataclasses.is_dataclass(m) for m in get_args(hint)):
            kinds = {member.kind: member for member in get_args(hint)}
            kind = given.value(path + "kind") or value.kind
            if kind not in kinds:
                raise UserError(f"unknown {path}kind {kind!r}: choose one of {', '.join(kinds)}")
            value = value if kind == value.kind else kinds[kind]()
        if dataclasses.is_dataclass(value):
            changes[name] = with_kinds(value, given, path)
    return replace(config, **changes)
