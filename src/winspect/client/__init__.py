"""Ask the service from Python: ``Client`` and ``AsyncClient``, on httpx alone (extra ``client``); no torch.

>>> from winspect.client import Client
>>> with Client("http://localhost:8080", api_key=None) as service:
...     service.url
'http://localhost:8080'
"""

from winspect.client.answers import (
    AnomalyMap,
    Calibration,
    ClassInfo,
    Feedback,
    JudgedPicture,
    Rates,
    Reference,
    References,
    ReviewPicture,
    Row,
    RowError,
)
from winspect.client.asynchronous import AsyncClient
from winspect.client.errors import ClientError, NoAnswerError, RefusedError
from winspect.client.synchronous import Client
from winspect.system.retrying import Retries

__all__ = [
    "AnomalyMap",
    "AsyncClient",
    "Calibration",
    "ClassInfo",
    "Client",
    "ClientError",
    "Feedback",
    "JudgedPicture",
    "NoAnswerError",
    "Rates",
    "Reference",
    "References",
    "RefusedError",
    "Retries",
    "ReviewPicture",
    "Row",
    "RowError",
]
