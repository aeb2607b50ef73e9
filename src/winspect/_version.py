"""The version, in a file of its own so that reading it imports nothing else.

A build writes what git's tag says to ``system/_release.py``; a checkout that was never installed has no such file.
"""

try:
    from winspect.system._release import version as __version__
except ModuleNotFoundError:
    __version__ = "0.1.0"
