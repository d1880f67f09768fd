"""For tests: virtual time, and checks that a store or a network keeps its contract."""

from __future__ import annotations

from ._check_network import check_network as check_network
from ._check_store import check_store as check_store
from ._virtual_asyncio import VirtualEventLoop as VirtualEventLoop
from ._virtual_clock import VirtualClock as VirtualClock, run_virtual as run_virtual, virtual_backend as virtual_backend

__all__ = ["VirtualClock", "VirtualEventLoop", "check_network", "check_store", "run_virtual", "virtual_backend"]
