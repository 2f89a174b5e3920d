"""The two ways a run may end that are not bugs; the command line turns them into one line and an exit code."""


class UserError(ValueError):
    """The user's mistake: what was wrong, where, and what to do, in one line (exit code 2)."""


class RunError(RuntimeError):
    """A run that failed for a reason outside the code: full disk, diverged loss (exit code 1)."""
