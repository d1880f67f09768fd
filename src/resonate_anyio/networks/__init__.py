"""Networks: how requests reach an engine, and how its messages come back."""

from ._clock import system_clock as system_clock
from ._local import LocalNetwork as LocalNetwork

__all__ = ("LocalNetwork", "system_clock")
