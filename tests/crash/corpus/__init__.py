"""The corpus: workflows by theme. Importing this fills `scenarios.CORPUS`."""

from . import cancels as cancels
from . import deadlines as deadlines
from . import failures as failures
from . import own_concurrency as own_concurrency
from . import remote as remote
from . import steps as steps
from . import waits as waits
