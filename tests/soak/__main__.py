"""``python -m tests.soak --minutes 10``: makes calls, and looks at what is in use.

Exit status: 0 if all is well; 1 if a call went wrong, or if anything in use grows; 2 if the command line is wrong, or
the system not Linux; 3 if no call went wrong, and the run was too short to tell whether anything grows.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import multiprocessing.util
import os
import random
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from shutil import rmtree

from tests.soak.kinds import KINDS, Kinds
from tests.soak.metrics import is_available, measure, names_of_shared_memory
from tests.soak.plan import ITEMS
from tests.soak.planted import PLANTED
from tests.soak.run import SECONDS_PER_SAMPLE, Soak, Status, minutes_needed, report

#: What hangs ends the run, with the stacks of all threads. Looked at anew with every sample.
HANG_SECONDS = 120.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        help=f"how long (%(default)g); below {minutes_needed()} is too short to tell a trend, and exits with 3",
    )
    parser.add_argument("--seed", type=int, default=None, help="of the choice of calls")
    parser.add_argument("--backends", default=",".join(KINDS), help=f"which, of {','.join(KINDS)}")
    # To see that the run finds a leak.
    parser.add_argument("--plant", choices=sorted(PLANTED), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.backends = arguments.backends.split(",")
    unknown = set(arguments.backends) - set(KINDS)
    if unknown:
        parser.error(f"there is no backend {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return arguments


def _run(arguments: argparse.Namespace, temp_folder: Path) -> int:
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, backends {', '.join(arguments.backends)}", flush=True)

    def print_line(line: str) -> None:
        print(line, flush=True)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)

    planted = (PLANTED[arguments.plant],) * len(ITEMS) if arguments.plant else ()
    others = names_of_shared_memory()
    with Kinds(arguments.backends) as kinds:
        soak = Soak(kinds, ITEMS + planted, seed, lambda: measure(temp_folder, others), print_line)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            soak.run(arguments.minutes * 60, SECONDS_PER_SAMPLE)
        except Exception:
            traceback.print_exc()
            return Status.BAD
        finally:
            faulthandler.cancel_dump_traceback_later()
    lines, status = report(soak.verdicts())
    print("\n".join(lines), flush=True)
    return status


def main() -> int:
    """Run the command line."""
    if not is_available():
        print("the soak test reads /proc: it needs Linux", file=sys.stderr)
        return 2
    arguments = _arguments()
    # What tasks warn of and log is part of some calls, and checked there.
    warnings.simplefilter("ignore")
    logging.getLogger("tests.soak").propagate = False
    temp_folder = Path(tempfile.mkdtemp(prefix="soak-"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(temp_folder)
    # After multiprocessing has removed its own folder in there, which it does at -100.
    multiprocessing.util.Finalize(None, rmtree, (temp_folder, True), exitpriority=-200)
    return _run(arguments, temp_folder)


if __name__ == "__main__":
    sys.exit(main())
