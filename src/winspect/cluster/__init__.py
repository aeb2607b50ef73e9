"""The same job on a Ray cluster, or on one machine by the same engine: ``winspect batch``. Needs ``winspect[ray]``.

::

    inputs ── shard ──> worker (predict_many, heat maps) ── bytes of the part file ──> destination
    (driver)            (actor: one loaded model)                                      (driver)

A shard is the unit of work. Which input lies in which shard is fixed before anything runs, and the driver alone puts
part files in place: so nothing is lost, and nothing is there twice.
"""

import os

from winspect.errors import MissingExtraError
from winspect.system.installation import install_command

# A call of Ray behind the end of a cluster would start another one; read when Ray is imported.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
try:
    import pyarrow  # noqa: F401
    import ray  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"{error.name} is not installed: {install_command('ray')} (on every machine of a cluster)"
    ) from error

from winspect.cluster.results import read_results
from winspect.cluster.run import batch

__all__ = ["batch", "read_results"]
