"""How many processes or threads may work at once. Imports nothing heavy."""

import os

MOST_WORKERS = 8  # YOLOv5's default


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine's under taskset or in a batch queue."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def usual_workers() -> int:
    """Processes or threads that read pictures where nobody says how many."""
    return min(MOST_WORKERS, usable_cores())
