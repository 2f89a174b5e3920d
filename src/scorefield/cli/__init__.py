"""The command line: one file a command, flags derived from typed dataclasses, every mistake one line.

Exit codes: 0 ok, 1 a run or check failed, 2 the user's mistake, 130 or 143 interrupted by Ctrl-C or SIGTERM.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn, Union

from scorefield.cli.table_runs import is_table_run
from scorefield.errors import RunError, UserError

ABOUT = """Learn the score field of data by score matching, without computing a partition function, and sample from it.

Try `scorefield demo`. `scorefield COMMAND --help` explains each command; `scorefield --version` prints the version.
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: to be handled like Ctrl-C, with an exit code of its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; messages go to stderr, results to stdout."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        with terminable():
            return run_command(arguments)
    except (UserError, RunError) as error:
        print(f"scorefield: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt as stop:
        kept = " and what is computed is kept: the same command goes on" if is_kept(arguments) else ""
        print(f"scorefield: interrupted; nothing was left half written{kept}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        return 1


def is_kept(arguments: Sequence[str]) -> bool:
    """Whether a command, when it is interrupted, keeps what it has computed for the next time."""
    return arguments[:1] == ["compare"] or (arguments[:1] in (["evaluate"], ["logprob"]) and not is_table_run(arguments[1:]))


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the block, so that it can clean up; only the main thread can have that."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def run_command(arguments: Sequence[str]) -> int:
    """Parse and run; raises what is wrong. Imports take seconds, and Ctrl-C must find `main` when they are under way."""
    if arguments[:1] == ["--version"]:
        from scorefield import __version__

        print(f"scorefield {__version__}")
        return 0
    from scorefield.cli.compare import Compare
    from scorefield.cli.compose import Compose
    from scorefield.cli.data import DataCommand
    from scorefield.cli.demo import Demo
    from scorefield.cli.describe import Describe
    from scorefield.cli.evaluate import Evaluate
    from scorefield.cli.inpaint import Inpaint
    from scorefield.cli.logprob import LogProb
    from scorefield.cli.logz import LogZ
    from scorefield.cli.parse import parse
    from scorefield.cli.sample import Sample
    from scorefield.cli.tables import NOT_YET_OF_TABLES, TABLE_COMMANDS, Impute, concerns_table
    from scorefield.cli.train import Train
    from scorefield.cli.verify import Verify

    commands: dict[str, Any] = {
        "train": Train, "sample": Sample, "evaluate": Evaluate, "demo": Demo, "data": DataCommand, "describe": Describe,
        "logprob": LogProb, "logz": LogZ, "compare": Compare, "compose": Compose, "inpaint": Inpaint, "impute": Impute,
        "verify": Verify,
    }  # fmt: skip
    choices = f"choose one of {', '.join(commands)}"
    if not arguments:
        raise UserError(f"no command given: {choices} (see scorefield --help)")
    name = arguments[0]
    if name in NOT_YET_OF_TABLES and is_table_run(arguments[1:]):
        raise UserError(f"{name} does not take runs of tables yet: use sample, evaluate, logprob or impute")
    if concerns_table(name, arguments[1:]):
        commands = commands | TABLE_COMMANDS
    if name in commands:
        default = commands[name].defaults(arguments[1:])
        code: int = parse(commands[name], arguments[1:], prog=f"scorefield {name}", default=default)()
        return code
    if not name.startswith("-"):
        raise UserError(f"unknown command {name!r}: {choices}")
    from tyro.conf import subcommand

    union: Any = Union[tuple(Annotated[kind, subcommand(title)] for title, kind in commands.items())]  # noqa: UP007
    parse(union, arguments, prog="scorefield", description=ABOUT)  # --help and completion end here
    raise UserError(f"no command given: {choices}")


__all__ = ["main"]
