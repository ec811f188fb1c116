"""The loader: a dataset's batches, from processes of their own."""

import os
import re
import signal
import sys
import tempfile
import threading
import traceback

import cv2
import torch
from torch.utils.data import DataLoader

from models.errors import UserError
from ocrdistill.signals import STOPPING
from utils.loading.batches import EpochBatches, collate
from utils.loading.dataset import TextDataset
from utils.runtime.words import counted

# Loading processes are the trainer's own children, whatever Python's default: so they see it die, and end. Those of a
# server of processes (forkserver) would wait for ever after a kill -9.
FORK = 'fork' if sys.platform == 'linux' else None
MAX_TEMPORARY = 75  # bytes of the temporary folder's name: sockets between processes lie in it and take 108 in all
DEATHS = re.compile('DataLoader worker|Pin memory thread')  # in torch's words for a loading process that died


class WorkerDied(UserError):
    """A loading process ended without being asked to."""


class BatchLoader(DataLoader):
    """A DataLoader whose errors stay one line when they come from a worker process.

    Raises, when iterated:
        UserError: of the data.
        WorkerDied: a worker process was killed or crashed. The next iteration starts new ones.
    """

    dataset: TextDataset
    batch_sampler: EpochBatches

    def __iter__(self):
        try:
            yield from self._from_workers()
        except (RuntimeError, ConnectionError, EOFError) as error:
            # A batch whose worker dies before it is fetched ends the connection to it, as a rule before torch can tell
            # that the process is gone.
            if not self.num_workers or (isinstance(error, RuntimeError) and not DEATHS.search(str(error))):
                raise
            self.close()
            raise WorkerDied(
                'a process that loads pictures was killed (out of memory? in Docker, of /dev/shm: --shm-size) or '
                'crashed; --workers 0 loads without them'
            ) from None
        except UserError as error:
            # torch wraps a worker's error in its traceback, of which the last line is the message. The frames
            # keep the worker processes' queues in a cycle, whose collection would wait 5 s for each worker.
            traceback.clear_frames(error.__traceback__)
            raise UserError(
                str(error).strip().splitlines()[-1].removeprefix(f'{UserError.__module__}.UserError: ')
            ) from None

    def _from_workers(self):
        batches = super().__iter__()
        main = threading.current_thread() is threading.main_thread()
        if self.num_workers and main and hasattr(signal, 'SIGCHLD'):  # Windows has none
            # torch would report a dead worker from a signal handler, in the middle of anything. Without that the wait
            # for its next batch ends.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield from batches

    def close(self) -> None:
        """End the worker processes; left to the interpreter's exit after an error, they complain."""
        if getattr(self, '_iterator', None) is not None:
            self._iterator._shutdown_workers()
            self._iterator = None


def _start_worker(_number: int) -> None:
    """One thread; Ctrl-C and SIGHUP are the main process's business, and SIGTERM ends a worker without a word."""
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, *STOPPING):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def build_loader(
    dataset: TextDataset,
    batch_size: int,
    workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
    pin: bool = False,
) -> BatchLoader:
    """Batches of a dataset, the last one possibly smaller. `loader.batch_sampler.epoch = e` before each epoch.

    What comes out does not depend on the number of workers, and nothing is drawn from torch's global generator.

    Args:
        part: (rank, world) of the processes that share the batches, see EpochBatches.
        pin: put batches into memory from which a GPU can fetch them on its own.

    Raises:
        UserError: a batch has fewer pictures than there are processes to share it.
        ValueError: shuffling a dataset whose batches are rectangular.
    """
    if shuffle and dataset.rect:
        raise ValueError('rectangular batches have a fixed order: shuffle must be False')
    if workers and len(os.fsencode(tempfile.gettempdir())) > MAX_TEMPORARY:
        raise UserError(f'the temporary folder {tempfile.gettempdir()} has too long a name: set TMPDIR, or --workers 0')
    batches = EpochBatches(len(dataset), batch_size, seed, shuffle, part)
    last = batches.size((len(dataset) - 1) // batch_size)
    if shuffle and last < part[1]:
        raise UserError(
            f'{counted(len(dataset), "picture")} in batches of {batch_size}: the last batch has {last} for '
            f'{part[1]} processes; choose another --batch-size'
        )
    return BatchLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        persistent_workers=workers > 0,
        multiprocessing_context=FORK if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed),
    )
