"""HTML pages with everything in them: nothing is loaded from elsewhere and nothing is executed."""

from scorefield.report.comparison import leaderboard_cells, leaderboard_markdown, reading, write_comparison
from scorefield.report.run import commands, write_report

__all__ = ["commands", "leaderboard_cells", "leaderboard_markdown", "reading", "write_comparison", "write_report"]
