"""The data yaml: where the images of each split are, and what their classes are called."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from models.errors import UserError
from models.yamls import ROOT, near_program, read_yaml
from utils.loading.files import matching
from utils.runtime.hyp import check_keys
from utils.runtime.words import counted

SPLITS = ('train', 'val', 'test')
KEYS = ('path', *SPLITS, 'take', 'names', 'nc', 'dont_care', 'edge_weight', 'prepare')
IGNORED = ('roboflow', 'download')  # keys of other tools that say nothing about where the images are
DONT_CARE = ('ignore', 'text')


@dataclass(frozen=True)
class DataConfig:
    """A data yaml: where the pictures of each split are, and what their classes are called.

    Attributes:
        path: the folder that the splits are relative to; the yaml's own where the yaml does not say.
        splits: split name -> a folder of pictures, a list file (*.txt), or a list of these.
        names: class number -> name, 0 to nc - 1.
        nc: number of classes.
        dont_care: 'ignore' (regions in ignore/ are neither targets nor background) or 'text' (they are targets).
        prepare: the command that makes the data, '' if none was given.
        file: the yaml.
        edge_weight: place, as splits name it -> 0 to 1, how much its labels say of the corners of words; others 1.
        take: so many pictures of train are trained on, spread evenly over all; None: all.
    """

    path: Path
    splits: dict[str, str | list[str]]
    names: dict[int, str]
    nc: int
    dont_care: str
    prepare: str
    file: Path
    edge_weight: dict[str, float] = field(default_factory=dict)
    take: int | None = None


def load_data_config(file: Path | str) -> DataConfig:
    """Read a data yaml. The data itself may be missing still: listing its pictures is what asks for it.

    Raises:
        UserError: no such file, not yaml, an unknown or missing key, a value of the wrong form.
    """
    file = near_program(file)
    values = {key: value for key, value in read_yaml(file).items() if key not in IGNORED}
    check_keys(values, KEYS, file)
    for key in ('train', 'val', 'names'):
        if values.get(key) in (None, '', []):
            raise UserError(f'{file}: the key {key!r} is missing or empty')
    splits = {split: values[split] for split in SPLITS if values.get(split) not in (None, '', [])}
    for split, entry in splits.items():
        if not all(isinstance(item, str) and item for item in listed(entry)):
            raise UserError(f'{file}: {split} is {entry!r}, expected a folder, a list file, or a list of these')
    names = _read_names(values['names'], file)
    if values.get('nc', len(names)) != len(names):
        raise UserError(f'{file}: nc is {values["nc"]!r}, but names has {counted(len(names), "class", "classes")}')
    dont_care = values.get('dont_care', DONT_CARE[0])
    if dont_care not in DONT_CARE:
        raise UserError(f'{file}: dont_care is {dont_care!r}, expected one of {", ".join(DONT_CARE)}')
    places = [place for entry in splits.values() for place in listed(entry)]
    weights = _read_weights(values.get('edge_weight') or {}, places, file)
    take = values.get('take')
    if take is not None and (isinstance(take, bool) or not isinstance(take, int) or take < 1):
        raise UserError(f'{file}: take is {take!r}, expected how many pictures of train to train on')
    prepare = str(values.get('prepare') or '')
    folder = _data_folder(values.get('path'), places, file)
    return DataConfig(folder, splits, names, len(names), dont_care, prepare, file, weights, take)


def _data_folder(path, places: list[str], file: Path) -> Path:
    """What the splits are relative to: `path` from the current folder, the program's or the yaml's, the first below
    which one of the places lies; without a path the yaml's folder."""
    try:
        folder = file.parent if path in (None, '') else Path(str(path)).expanduser()
        bases = (folder,) if path in (None, '') else (folder, ROOT / folder, file.parent / folder)
        found = {base: [place_below(base, place) for place in places] for base in bases}
        missing = folder if folder.exists() else ROOT / folder
        return next((base for base, there in found.items() if any(there)), missing)
    except (OSError, RuntimeError, ValueError) as error:  # a name too long for a file system, no such user
        raise UserError(f'{file}: path, train, val and test must name places ({error})') from None


def place_below(folder: Path, place: str) -> Path | None:
    """The folder or list that a split names, None if there is none. Windows' backslashes are read, the '../' that
    Roboflow writes before places that lie in the folder itself, and names in another case."""
    slashes = place.replace('\\', '/')
    shorter = re.sub(r'^(\.\./)+', '', slashes)
    exact = (folder / name for name in (place, slashes, shorter) if name and (folder / name).exists())
    return next(exact, None) or (matching(folder, shorter) if shorter and folder.is_dir() else None)


def listed(entry) -> list:
    """The places that a split names, one or several."""
    return entry if isinstance(entry, list) else [entry]


def _read_weights(weights, places: list[str], file: Path) -> dict[str, float]:
    """Weights from 0 to 1 of places that splits name."""
    if not isinstance(weights, dict):
        raise UserError(f'{file}: edge_weight is {weights!r}, expected rows of the form "images/train: 0.5"')
    for place, weight in weights.items():
        if place not in places:
            known = ', '.join(dict.fromkeys(places))
            raise UserError(f'{file}: edge_weight names {place!r}, which no split does (they name {known})')
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise UserError(f'{file}: edge_weight of {place} is {weight!r}, expected a number from 0 to 1')
    return {place: float(weight) for place, weight in weights.items()}


def _read_names(names, file: Path) -> dict[int, str]:
    """Class names from a list, or from a mapping with the keys 0 to n - 1."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise UserError(f'{file}: names is {names!r}, expected a list, or rows of the form "0: text"')
    if sorted(names) != list(range(len(names))):
        raise UserError(f'{file}: the class numbers in names are {sorted(names)}, expected 0 to {len(names) - 1}')
    return {number: str(names[number]) for number in sorted(names)}
