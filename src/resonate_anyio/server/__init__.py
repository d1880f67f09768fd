"""The embedded engine behind the HTTP surface of a Resonate Server. Needs the extra `server`."""

from ._app import App as App, make_app as make_app
from ._auth import Auth as Auth
from ._serve import listen as listen, serve as serve

__all__ = ("App", "Auth", "listen", "make_app", "serve")
