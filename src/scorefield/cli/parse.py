"""From arguments to a typed dataclass, through tyro; whatever is wrong becomes one line."""

import dataclasses
import io
import itertools
import re
import textwrap
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff

from scorefield.errors import UserError

T = TypeVar("T")


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
                args=list(arguments),
                prog=prog,
                default=tyro.MISSING_NONPROP if default is None else default,
                description=description,
                config=(AvoidSubcommands, FlagCreatePairsOff),
            )
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
    return " ".join(message.split()).rstrip(".")


def is_rule(row: str) -> bool:
    return not row.strip("─- ")


def peek(arguments: Sequence[str], name: str) -> str | None:
    """The last value of `name VALUE` or `name=VALUE`, read before the parser exists."""
    value = None
    for token, following in itertools.pairwise([*arguments, None]):
        if token == name:
            value = following
        elif token and token.startswith(name + "="):
            value = token.removeprefix(name + "=")
    return value


def with_kinds(config: Any, arguments: Sequence[str], prefix: str = "--") -> Any:
    """`config` with each union's member replaced by the one that `--….kind NAME` asks for, so that its flags exist.

    Raises:
        UserError: no member has that kind.
    """
    changes: dict[str, Any] = {}
    for name, hint in get_type_hints(type(config)).items():
        value, path = getattr(config, name), f"{prefix}{name.replace('_', '-')}."
        if get_origin(hint) in (Union, UnionType) and all(dataclasses.is_dataclass(m) for m in get_args(hint)):
            kinds = {member.kind: member for member in get_args(hint)}
            kind = peek(arguments, path + "kind") or value.kind
            if kind not in kinds:
                raise UserError(f"unknown {path}kind {kind!r}: choose one of {', '.join(kinds)}")
            value = value if kind == value.kind else kinds[kind]()
        if dataclasses.is_dataclass(value):
            changes[name] = with_kinds(value, arguments, path)
    return replace(config, **changes)
