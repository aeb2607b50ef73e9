"""Scoring pictures as they arrive, in a folder or from a camera, for days and in constant memory.

* ``folder``: the queue of what has arrived in the folder, each file once it is complete; from ``events`` and ``tree``.
* ``camera``: the newest frame of a stream, connected again for as long as it takes; video files.
* ``journal``: what has been scored, across restarts.
* ``rows``, ``results``: the results on disk, a file a day; a full disk is waited for.
* ``run``: the loops that join them to a model.
"""
