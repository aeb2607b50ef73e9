"""Judging pictures as they arrive: in a folder, or from a camera. For days, in constant memory.

* ``folder``: what is in the folder and has not been judged, in order of arrival, each file once it is complete.
* ``camera``: the newest frame of a stream, connected again for as long as it takes.
* ``journal``: what has been judged, across restarts.
* ``rows``, ``results``: the results on disk, a file a day; a full disk is waited for.
* ``run``: the loops that join them to a model.
"""
