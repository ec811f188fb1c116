"""How the commands of the repository start and end: as the package's, and what needs its libraries besides."""

import sys
from collections.abc import Callable

from models.errors import UserError
from ocrdistill.command import end_plainly

LACK_OF_MEMORY = (  # in what Python, OpenCV or PyTorch say
    *('not enough memory', "can't allocate memory", 'Insufficient memory', 'Failed to allocate'),
    *('out of memory', 'STATUS_ALLOC_FAILED'),
)
OF_GPUS = ('OutOfMemoryError', 'CUDA', 'CUBLAS', 'CUDNN')


def run_command(main: Callable[[], None]) -> None:
    """As ocrdistill.command.end_plainly; also 1 with a line where a child process failed or memory ran out."""
    end_plainly(lambda: _plain(main), _say)


def _plain(main: Callable[[], None]) -> None:
    try:
        main()
    except (UserError, OSError):
        raise
    except Exception as error:
        if type(error).__name__ == 'CalledProcessError':  # of subprocess: the child has said why, in its last line
            raise UserError(_last_words(error)) from None
        if not _is_lack_of_memory(error):
            raise
        owner = 'GPU' if any(word in f'{type(error).__name__} {error}' for word in OF_GPUS) else 'machine'
        raise UserError(f'the {owner} ran out of memory; try a smaller --batch-size or --imgsz') from None


def positive(text: str) -> int:
    """A positive whole number, as a type for argparse."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _say(message: str) -> None:
    """A last line on standard error; a progress bar that is not at its end ends its own line first."""
    if 'tqdm' in sys.modules:
        for bar in list(getattr(sys.modules['tqdm'].tqdm, '_instances', ())):
            bar.close()
    print(message, file=sys.stderr)


def _last_words(error) -> str:
    """Of a subprocess.CalledProcessError."""
    said = error.stderr or ''
    lines = (said if isinstance(said, str) else said.decode(errors='replace')).strip().splitlines()
    return f'a command ended with status {error.returncode}: {lines[-1] if lines else error.cmd}'


def _is_lack_of_memory(error: Exception) -> bool:
    """Of Python, NumPy, OpenCV or PyTorch, none of which is imported here."""
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {'MemoryError', 'OutOfMemoryError'}) or any(word in str(error) for word in LACK_OF_MEMORY)
