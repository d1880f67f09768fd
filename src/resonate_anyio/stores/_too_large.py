"""`RowTooLarge`, which is known without SQLite: networks handle it, whatever the store is."""

from __future__ import annotations

from .._errors import StoreError


class RowTooLarge(StoreError):
    """SQLite cannot hold a row of this size; nothing was written. `LocalNetwork` names the request in its error."""
