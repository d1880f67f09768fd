"""How the server's certificate is checked, and which certificate this client presents."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from .._errors import InvalidArgument

Verify: TypeAlias = bool | str | os.PathLike[str] | ssl.SSLContext
"""True: by the usual authorities; a path: by the authorities in this file or directory; False: not; or a context."""

Certificate: TypeAlias = str | tuple[str, str] | tuple[str, str, str]
"""The path of a certificate, or paths of certificate and key, and the password of the key."""


class Security:
    """The one `ssl.SSLContext` of all clients of a network.

    Args:
        verify: how the server's certificate is checked.
        cert: the certificate of this client.
        usual: makes a context that checks by the usual authorities, or not at all.

    Raises:
        InvalidArgument: a file cannot be read, or has the wrong content.
    """

    def __init__(self, verify: Verify, cert: Certificate | None, usual: Callable[[bool], ssl.SSLContext]) -> None:
        if cert is not None and isinstance(verify, ssl.SSLContext):
            msg = "cert cannot be added to the SSLContext in verify; call its load_cert_chain instead"
            raise InvalidArgument(msg)
        self._make: Callable[[], ssl.SSLContext] = lambda: _loaded(verify, cert, usual)
        # Files are read now, so that the caller who names them gets the error. The usual authorities take long to
        # load, so the first connection loads them.
        self._context = None if isinstance(verify, bool) and cert is None else self._make()

    def context(self) -> ssl.SSLContext:
        """Return the context. It is the same object each time."""
        self._context = self._context or self._make()
        return self._context


def _loaded(verify: Verify, cert: Certificate | None, usual: Callable[[bool], ssl.SSLContext]) -> ssl.SSLContext:
    match verify:
        case bool():
            context = usual(verify)
        case ssl.SSLContext():
            context = verify
        case str() | os.PathLike():
            context = _trusting(Path(verify))
        case _:
            msg = f"verify is True, False, the path of a file with authorities or an ssl.SSLContext, not {verify!r}"
            raise InvalidArgument(msg)

    if cert is not None:
        _show(context, cert)
    return context


def _trusting(path: Path) -> ssl.SSLContext:
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        msg = f"verify={str(path)!r} is no file or folder with certificates of authorities: {error}"
        raise InvalidArgument(msg) from error


def _show(context: ssl.SSLContext, cert: Certificate) -> None:
    paths = (cert,) if isinstance(cert, str) else cert
    try:
        context.load_cert_chain(*paths)
    except (OSError, TypeError) as error:
        # The password must not be shown.
        msg = f"cert={paths[:2]!r} cannot be used: {error}"
        raise InvalidArgument(msg) from error
