"""Checkpoints: ours (tensors and plain data) and public YOLOv5 files, both read without running code from them."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import UserError, first_line
from models.yamls import near_program
from models.yolo import OLD, STRIDES, DetectionModel
from ocrdistill.points import MAX_SIDE, from_plain, is_scale, is_threshold
from ocrdistill.whole_files import replacing

FORMAT, VERSION = 'ocrdistill', 1
# Names that a public YOLOv5 file may hold beyond tensors and containers. Every one becomes an inert stand-in: none of
# these classes is imported, nothing of theirs runs.
INERT_PREFIXES = ('models.common.', 'models.yolo.', 'torch.nn.modules.')
INERT_NAMES = {
    'argparse.Namespace',
    'pathlib.PosixPath',
    'pathlib.WindowsPath',
    'datetime.datetime',
    '_codecs.encode',
    'numpy.dtype',
    'numpy.ndarray',
    *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('_reconstruct', 'scalar')),
}


class StandIn:
    """Takes the place of any class in a public file: keeps the attributes that were stored, does nothing."""

    yaml: Any  # of a model

    def __init__(self, *_args: object, **_kwargs: object):
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


@dataclass
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        state: state dict, as stored (half or single precision).
        yaml: the model's yaml, None where a public file lacks it.
        names: {class index: name}.
        meta: for ours, all the other entries (options, epoch, metrics, conf_threshold, resume ...).
    """

    path: Path
    state: dict[str, Tensor]
    yaml: dict[str, Any] | None
    names: dict[int, str]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class Transfer:
    """How the entries of a checkpoint met those of a model."""

    matched: list[str]
    skipped: list[str]  # in the checkpoint, but not in the model or of another shape
    missing: list[str]  # in the model, but not in the checkpoint or of another shape

    def __str__(self) -> str:
        return f'{len(self.matched)} entries matched, {len(self.skipped)} skipped, {len(self.missing)} missing'


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read one of our checkpoints or a public YOLOv5 .pt file (v6.0 to v7.0).

    Raises:
        UserError: no such file, no checkpoint, of an unsupported version, or one that would have to run code.
    """
    path = near_program(path)
    if not path.is_file():
        raise UserError(f'no such checkpoint: {path}')
    content = _load_restricted(path)
    if not isinstance(content, dict):
        raise UserError(f'{path} is no checkpoint of a detector')
    try:
        checkpoint = _own(path, content) if content.get('format') == FORMAT else _public(path, content)
        _validate(checkpoint)
    except UserError:
        raise
    except Exception as error:  # what a damaged or forged file holds can be anything
        raise UserError(f'{path} is damaged: {first_line(error)}') from None
    return checkpoint


def _validate(checkpoint: Checkpoint) -> None:
    """Refuse content of another form than any detector's. Raises UserError."""
    problem = _problem_of_weights(checkpoint) or _problem_of_entries(checkpoint.meta)
    if problem:
        raise UserError(f'{checkpoint.path} cannot be used: {problem}')


def _problem_of_weights(checkpoint: Checkpoint) -> str:
    problem, state = '', checkpoint.state
    if not state or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        problem = 'its weights are no state dict'
    elif any(value.numel() * value.element_size() > len(value.untyped_storage()) for value in state.values()):
        problem = 'it holds less than it claims'  # a few bytes, expanded to gigabytes
    elif not all(bool(torch.isfinite(value).all()) for value in state.values()):
        problem = 'it holds weights that are not finite'
    elif any(key.endswith('.anchors') and value.dim() != 3 for key, value in state.items()):
        problem = 'its anchors are of another form'
    elif checkpoint.yaml is not None and not isinstance(checkpoint.yaml, dict):
        problem = 'its model yaml is none'
    elif sorted(checkpoint.names) != list(range(len(checkpoint.names))):
        problem = f'its classes are numbered {sorted(checkpoint.names)}'
    return problem


def _problem_of_entries(meta: dict[str, Any]) -> str:
    problem = ''
    if meta.get('version', VERSION) != VERSION:
        return f'it is of version {meta["version"]}, this program reads version {VERSION}'
    if not is_threshold(threshold := meta.get('conf_threshold')):
        problem = f'its confidence threshold is {threshold!r}'
    elif not is_scale(meta.get('word_scale')):
        problem = f'its word scale is {meta["word_scale"]!r}'
    elif not isinstance(meta.get('options') or {}, dict):
        problem = 'its training options are no table'
    elif not _is_scores(meta.get('metrics') or {}):
        problem = 'its metrics are no table of numbers'
    try:
        from_plain(meta.get('points'))
    except ValueError as error:
        problem = str(error)
    return problem


def _is_scores(metrics: Any) -> bool:
    """Whether they are numbers by name; NaN is that of an epoch without validation."""
    return isinstance(metrics, dict) and all(isinstance(value, int | float) for value in metrics.values())


def _load_restricted(path: Path) -> Any:
    """torch.load(weights_only=True) in which only the known class names are replaced by stand-ins."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:  # PyTorch compresses nothing
            raise ValueError(f'it would unpack to {unpacked} bytes')
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # as below
        raise UserError(f'{path} is no PyTorch checkpoint (or older than v6.0): {first_line(error)}') from None
    hostile = [name for name in unknown if not (name.startswith(INERT_PREFIXES) or name in INERT_NAMES)]
    if hostile:
        raise UserError(f'{path} refused: it asks to load {", ".join(sorted(hostile))}, which no detector needs')
    try:
        with torch.serialization.safe_globals([(StandIn, name) for name in unknown]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a mutated file can make the unpickler fail in any way, but never run anything
        raise UserError(f'{path} cannot be read as a checkpoint: {first_line(error)}') from None


def _own(path: Path, content: dict[str, Any]) -> Checkpoint:
    names = {int(i): str(name) for i, name in content['names'].items()}
    meta = {key: value for key, value in content.items() if key not in ('model', 'yaml', 'names')}
    return Checkpoint(path, content['model'], content['yaml'], names, meta)


def _public(path: Path, content: dict[str, Any]) -> Checkpoint:
    module = content.get('ema') or content.get('model')
    if not isinstance(module, StandIn) or not isinstance(getattr(module, 'yaml', None), dict):
        raise UserError(f'{path} holds no YOLOv5 model')
    layers = {row[2] for part in ('backbone', 'head') for row in module.yaml.get(part, [])}
    old = sorted(set(OLD) & layers)
    if old:
        raise UserError(f'{path} is a YOLOv5 before v6.0 (it uses {", ".join(old)}); only v6.0 to v7.0 are supported')
    names = getattr(module, 'names', None) or {}
    names = dict(enumerate(names)) if isinstance(names, list) else dict(names)
    state = dict(_state_entries(module))
    if not state:
        raise UserError(f'{path} holds a YOLOv5 model without weights')
    return Checkpoint(path, state, dict(module.yaml), {int(i): str(name) for i, name in names.items()})


def _state_entries(module: StandIn, prefix: str = '') -> Iterator[tuple[str, Tensor]]:
    """(key, tensor) of a stand-in's parameters and buffers, named as state_dict() would."""
    entries = {**getattr(module, '_parameters', {}), **getattr(module, '_buffers', {})}
    for name, value in entries.items():
        if isinstance(value, Tensor):
            # A fused convolution's batch normalisation or the head's old anchor_grid never reach a state dict of ours.
            yield prefix + name, value.detach()
    for name, child in getattr(module, '_modules', {}).items():
        if isinstance(child, StandIn):
            yield from _state_entries(child, f'{prefix}{name}.')


def transfer(model: DetectionModel, checkpoint: Checkpoint) -> Transfer:
    """Copy every entry whose key and shape match, except the anchors (the model's yaml has them)."""
    own = model.state_dict()
    fits = {
        key: value
        for key, value in checkpoint.state.items()
        if key in own and value.shape == own[key].shape and not key.endswith('.anchors')
    }
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in fits.items()}, strict=False)
    # Anchors are never copied, but a checkpoint that lacks them lacks an entry.
    anchors = {key for key in own if key.endswith('.anchors') and key in checkpoint.state}
    return Transfer(
        sorted(fits),
        sorted(checkpoint.state.keys() - fits.keys() - anchors),
        sorted(own.keys() - fits.keys() - anchors),
    )


def anchors_of(checkpoint: Checkpoint) -> list[list[float]] | None:
    """The checkpoint's anchors in pixels, one flat list a level (the buffer holds cells of strides 8, 16, 32)."""
    found = [value for key, value in checkpoint.state.items() if key.endswith('.anchors')]
    if not found:
        return None
    cells = found[0].float()
    return [(level * 8 * 2**i).flatten().tolist() for i, level in enumerate(cells)]


def has_quads(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's head predicts quads."""
    return bool((checkpoint.yaml or {}).get('quads'))


def same_anchors(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> bool:
    """Whether two sets of anchors (pixels) agree within the rounding of half precision."""
    a, b = (torch.tensor(anchors, dtype=torch.float32).flatten() for anchors in (first, second))
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3)


def restore(checkpoint: Checkpoint) -> DetectionModel:
    """Build the model of a checkpoint and load every entry.

    Raises:
        UserError: an entry is missing, left over or of another shape.
    """
    if checkpoint.yaml is None:
        raise UserError(f'{checkpoint.path} does not say which model it holds')
    model = DetectionModel(checkpoint.yaml, nc=len(checkpoint.names) or None, anchors=anchors_of(checkpoint))
    report = transfer(model, checkpoint)
    if report.skipped or report.missing:
        first = (report.missing or report.skipped)[0]
        raise UserError(f'{checkpoint.path} does not match its own model yaml: {report}, the first {first}')
    model.names = checkpoint.names or model.names
    take_point(model, checkpoint.meta)
    side = (checkpoint.meta.get('options') or {}).get('imgsz')
    if type(side) is int and 0 < side <= MAX_SIDE and not side % max(STRIDES) and not model.points:
        model.long_side = side
    if not checkpoint.meta.get('conf_threshold_from'):  # else that of the weights it began with, or the default
        model.trained_on = checkpoint.meta.get('chosen_on') or (checkpoint.meta.get('options') or {}).get('data')
    return model


def take_point(model: DetectionModel, meta: dict[str, Any]) -> None:
    """Give a model the thresholds and the word scales of a checkpoint's entries."""
    model.conf_threshold = meta.get('conf_threshold')
    model.word_scale = tuple(meta.get('word_scale') or model.word_scale)
    model.points = from_plain(meta.get('points'))


def load_model(path: str | Path, device: torch.device | str = 'cpu', fuse: bool = True) -> DetectionModel:
    """A checkpoint's detector in eval mode, float32, ready for inference. Raises UserError."""
    return ready(restore(read_checkpoint(path)), device, fuse)


def ready(model: DetectionModel, device: torch.device | str = 'cpu', fuse: bool = True) -> DetectionModel:
    """The same detector in eval mode, for inference."""
    model.eval().requires_grad_(False)
    if fuse:
        model.fuse()
    return model.to(device).to(memory_format=torch.channels_last)


def save_checkpoint(path: str | Path, model: DetectionModel, state: dict[str, Tensor], **entries: Any) -> None:
    """Write a checkpoint: to a temporary file beside it, flushed, then renamed, so the last good one survives.

    Args:
        path: file to write.
        model: gives yaml, names and stride.
        state: the weights to store.
        entries: plain data and tensors beside them (options, epoch, metrics, conf_threshold, resume ...).

    Raises:
        UserError: it cannot be written.
    """
    path = Path(path)
    content = {
        'format': FORMAT,
        'version': VERSION,
        'model': {key: value.detach().cpu().contiguous() for key, value in state.items()},
        'yaml': model.yaml,
        'names': model.names,
        'stride': model.stride.tolist(),
        **entries,
    }
    save_plain(path, content)


def save_plain(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain data as a whole or not at all. Raises UserError."""
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(first_line(error)) from None
