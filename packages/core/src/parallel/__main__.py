"""``python -m parallel``: what is installed, whether it can be loaded, and what a call would use here."""

from __future__ import annotations

import platform
import sys

from parallel import __version__, _plugins, cpu_count, explain


def main() -> int:
    """Print the report; give the exit status, 1 if a backend that is installed cannot be loaded."""
    print(f"parallel {__version__} on Python {platform.python_version()}, {sys.platform}")
    print(f"CPUs this process may use: {cpu_count()} ({cpu_count(only_physical_cores=True)} physical)")
    print("backends:")
    status = 0
    for name, origin in _plugins.installed_backends().items():
        try:
            _plugins.backend_factory(name)
            health = "ok"
        except Exception as error:
            health = f"cannot be loaded: {type(error).__name__}: {error}"
            status = 1
        print(f"  {name:16} {origin:28} {health}")
    print("a call that says nothing else than n_jobs=-1:")
    for line in str(explain(n_jobs=-1)).splitlines():
        print(f"  {line}")
    return status


if __name__ == "__main__":
    sys.exit(main())
