"""The same job on a Ray cluster, or on one machine by the same engine: ``winspect batch``. Needs ``winspect[ray]``.

::

    inputs ── shard ──> worker (predict_many, heat maps) ── bytes of the part file ──> destination
    (driver)            (actor: one loaded model)                                      (driver)

A shard is the unit of work. Which input lies in which shard is fixed before anything runs, and the driver alone puts
part files in place: so nothing is lost, and nothing is there twice.
"""

from winspect.cluster.cluster import check_ray

check_ray()  # before anything here imports what comes with it: so that the error names the extra

from winspect.cluster.results import read_results  # noqa: E402
from winspect.cluster.run import batch  # noqa: E402

__all__ = ["batch", "read_results"]
