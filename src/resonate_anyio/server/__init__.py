"""The embedded engine behind the HTTP surface of a Resonate Server. Needs the extra `server`."""

from ._app import App as App, make_app as make_app
from ._auth import Auth as Auth
from ._metrics import Metrics as Metrics
from ._serve import Backend as Backend, listen as listen, serve as serve, url_of as url_of
from ._trace import Trace as Trace

__all__ = ("App", "Auth", "Backend", "Metrics", "Trace", "listen", "make_app", "serve", "url_of")
