"""The data yaml: where the images of each split are, and what their classes are called."""

from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError
from utils.runtime.hyp import check_keys, read_yaml

ROOT = Path(__file__).resolve().parents[2]
SPLITS = ('train', 'val', 'test')
KEYS = ('path', *SPLITS, 'names', 'nc', 'dont_care', 'prepare')
DONT_CARE = ('ignore', 'text')


@dataclass(frozen=True)
class DataConfig:
    """A data yaml: where the pictures of each split are, and what their classes are called.

    Attributes:
        path: the folder that the splits are relative to.
        splits: split name -> a folder of pictures, a list file (*.txt), or a list of these.
        names: class number -> name, 0 to nc - 1.
        nc: number of classes.
        dont_care: 'ignore' (regions in ignore/ are neither targets nor background) or 'text' (they are targets).
        prepare: the command that makes the data, '' if none was given.
        file: the yaml.
    """

    path: Path
    splits: dict[str, str | list[str]]
    names: dict[int, str]
    nc: int
    dont_care: str
    prepare: str
    file: Path

    @property
    def selected_on_test(self) -> bool:
        """Whether val, which chooses epoch and threshold, is the test split, so that its figures are too good."""
        return self.splits['val'] == self.splits.get('test')


def load_data_config(file: Path | str) -> DataConfig:
    """Read a data yaml. The data itself may be missing still: listing its pictures is what asks for it.

    Raises:
        UserError: no such file, not yaml, an unknown or missing key, a value of the wrong form.
    """
    file = Path(file)
    values = read_yaml(file)
    check_keys(values, KEYS, file)
    for key in ('path', 'train', 'val', 'names'):
        if values.get(key) in (None, '', []):
            raise UserError(f'{file}: the key {key!r} is missing or empty')
    splits = {split: values[split] for split in SPLITS if values.get(split) is not None}
    for split, entry in splits.items():
        if not all(isinstance(item, str) for item in listed(entry)):
            raise UserError(f'{file}: {split} is {entry!r}, expected a folder, a list file, or a list of these')
    names = _read_names(values['names'], file)
    if values.get('nc', len(names)) != len(names):
        raise UserError(f'{file}: nc is {values["nc"]}, but names has {len(names)} classes')
    dont_care = values.get('dont_care', DONT_CARE[0])
    if dont_care not in DONT_CARE:
        raise UserError(f'{file}: dont_care is {dont_care!r}, expected one of {", ".join(DONT_CARE)}')
    places = [place for entry in splits.values() for place in listed(entry)]
    try:
        folder = Path(str(values['path'])).expanduser()
        here, in_root = ([(base / place).exists() for place in places] for base in (folder, ROOT / folder))
    except (OSError, RuntimeError, ValueError) as error:  # a name too long for a file system, no such user
        raise UserError(f'{file}: path, train, val and test must name places ({error})') from None
    if not any(here) and (any(in_root) or not folder.exists()):  # ROOT / folder is folder where that is absolute
        folder = ROOT / folder
    return DataConfig(folder, splits, names, len(names), dont_care, str(values.get('prepare') or ''), file)


def listed(entry) -> list:
    return entry if isinstance(entry, list) else [entry]


def _read_names(names, file: Path) -> dict[int, str]:
    """Class names from a list, or from a mapping with the keys 0 to n - 1."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise UserError(f'{file}: names is {names!r}, expected a list, or rows of the form "0: text"')
    if sorted(names) != list(range(len(names))):
        raise UserError(f'{file}: the class numbers in names are {sorted(names)}, expected 0 to {len(names) - 1}')
    return {number: str(names[number]) for number in sorted(names)}
