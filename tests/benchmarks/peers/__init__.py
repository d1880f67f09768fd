"""What `python -m tests.benchmarks compare` compares: this package, its peers, and floors. Each module runs one.

Such a module is a program of its own, which runs in an environment of its own: `measuring` has what they share. It
imports neither this package nor its dependencies, except for `ours`.
"""

from __future__ import annotations
