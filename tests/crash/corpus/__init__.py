"""The corpus: workflows by theme. Importing this fills `scenarios.CORPUS`."""

from . import cancels as cancels
from . import choices as choices
from . import deadlines as deadlines
from . import failures as failures
from . import groups as groups
from . import own_concurrency as own_concurrency
from . import remote as remote
from . import scopes as scopes
from . import steps as steps
from . import waits as waits
