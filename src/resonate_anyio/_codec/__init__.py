"""Values, calls and errors as they are recorded: base64 of strict JSON, in the form that type annotations demand.

Payloads of other SDKs are read too. A missing, empty or null payload is None. The arguments of a call may be a list,
null, or one bare value. An error is an object with at least a `message`.
"""

from ._codec import Call as Call, Codec as Codec
from ._converter import make_converter as make_converter
from ._json import JSON as JSON
