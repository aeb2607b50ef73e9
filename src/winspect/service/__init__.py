"""The service: an HTTP layer in one process, a model process per device, and a queue between them.

The HTTP process imports neither torch nor open_clip: the model lives in the processes of
:mod:`winspect.service.pool.worker`.
"""
