"""How fast this machine judges pictures: plans, engines and precisions measured in turn. Importing imports no torch."""

from winspect.speed.benchmark.plans import PLANS, Combination, combine
from winspect.speed.benchmark.results import write_results
from winspect.speed.benchmark.runs import run_benchmark

__all__ = ["PLANS", "Combination", "combine", "run_benchmark", "write_results"]
