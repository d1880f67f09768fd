"""Values, calls and errors as they are recorded: base64 of strict JSON, shaped by type annotations.

Facts about other SDKs that this follows: a missing, empty or null payload is None; the arguments of a call may be a
list, nothing, or one bare value; an error is an object with at least a `message`.
"""

from ._codec import Call as Call, Codec as Codec
from ._converter import make_converter as make_converter
from ._json import JSON as JSON
