"""Where the time goes: by stage, by operator class, against the machine's limits."""

from winspect.speed.profiling.results import profile, write_profile

__all__ = ["profile", "write_profile"]
