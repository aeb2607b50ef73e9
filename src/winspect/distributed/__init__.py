"""The same job on a Ray cluster, or on one machine by the same engine: ``winspect batch``. Needs ``winspect[ray]``.

::

    inputs ── decode ── judge ── paint ──> destination
    (driver)  (tasks)  (actors) (tasks)     (driver)

The stages are a Ray Data pipeline, which gives rows in any order; the driver is the only one that writes shards. Which
input lies in which shard is fixed before anything runs: so nothing is lost, and nothing is there twice.
"""

from winspect.distributed.reading import read_results
from winspect.distributed.run import batch

__all__ = ["batch", "read_results"]
