"""HTML pages with everything in them: nothing is loaded from elsewhere and nothing is executed."""

from scorefield.report.comparison import leaderboard_cells, leaderboard_markdown, reading, write_comparison
from scorefield.report.run import commands, write_report
from scorefield.report.table import in_words, write_table_report
from scorefield.report.table_comparison import table_comparison_cells, write_table_comparison

__all__ = [
    "commands",
    "in_words",
    "leaderboard_cells",
    "leaderboard_markdown",
    "reading",
    "table_comparison_cells",
    "write_comparison",
    "write_report",
    "write_table_comparison",
    "write_table_report",
]
