"""The same job on a Ray cluster, or on one machine by the same engine: ``winspect batch``. Needs ``winspect[ray]``.

::

    inputs ── decode ── judge ── paint ──> destination
    (driver)  (tasks)  (actors) (tasks)     (driver)

The stages are a Ray Data pipeline, which gives rows in any order; the driver is the only one that writes shards. Which
input lies in which shard is fixed before anything runs: so nothing is lost, and nothing is there twice.
"""

from winspect.cluster.cluster import check_ray

check_ray()  # before anything here imports what comes with it: so that what is said names the extra

from winspect.cluster.reading import read_results  # noqa: E402
from winspect.cluster.run import batch  # noqa: E402

__all__ = ["batch", "read_results"]
