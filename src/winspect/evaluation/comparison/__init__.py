"""Two runs side by side: does the other one judge as the baseline does? And a run beside published figures."""

from winspect.evaluation.comparison.pictures import Pictures, best_threshold, spearman
from winspect.evaluation.comparison.runs import Category, Comparison, Pair, compare_published, compare_runs

__all__ = [
    "Category",
    "Comparison",
    "Pair",
    "Pictures",
    "best_threshold",
    "compare_published",
    "compare_runs",
    "spearman",
]
