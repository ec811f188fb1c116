"""Exported files (ONNX, OpenVINO, TorchScript, ncnn, LiteRT) with the interface of a checkpoint's network, on CPUs.

A TorchScript file is a program: loading and calling it runs PyTorch operators of its author's choice (no Python, but
operators that read and write files are among them), so take such files only from people you trust. The others are
data. The metadata that is asked for here tells a mistaken file from an export of ours, not a hostile one.
"""

import importlib
import io
import json
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import load_model
from models.errors import UserError, first_line
from models.yolo import DetectionModel
from ocrdistill.metadata import FORMAT, Metadata
from ocrdistill.network import Run, import_onnxruntime, open_onnx

SUFFIXES = ('.onnx', '.xml', '.torchscript', '.param', '.tflite')
METADATA_FILE = 'ocrdistill.json'  # within a TorchScript archive
MAX_METADATA = 1 << 20  # bytes
LITERT = ('litert_torch', 'ai_edge_litert')  # not in requirements-export.txt, as they bring a gigabyte


class ExportedModel:
    """An exported network with the attributes and the call of a DetectionModel in eval mode.

    Args:
        file: where it comes from, for messages.
        metadata: what `utils.export.metadata.describe` wrote.
        run: the network.

    Attributes:
        names, nc, stride, conf_threshold, word_scale, points, trained_on: as of DetectionModel.
        input_size: (H, W) that the file is for, one picture at a time; None if it takes any multiple of the stride.
        long_side: pixels of the longer side that it is for, or with any size is best at.
        precision: 'float32', 'float16' or 'int8'.

    Raises:
        UserError: the metadata is not ours, or is for another use.
    """

    def __init__(self, file: Path, metadata: dict[str, Any], run: Run):
        about = Metadata(file, metadata)
        self.file, self._run = file, run
        self.names, self.nc, self.quads = about.names, about.nc, about.quads
        self.stride = torch.tensor([float(about.stride)])
        self.conf_threshold, self.word_scale, self.points = about.conf_threshold, about.word_scale, about.points
        self.point_at, self.precision = about.point_at, about.precision
        chosen_on = about.source.get('chosen_on') or about.source['options'].get('data')
        self.trained_on = None if about.source.get('conf_threshold_from') else chosen_on
        self.input_size, self.long_side = about.input_size, about.long_side

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        """(B, 3, H, W) pictures, 0..1 -> (decoded (B, M, 5 + nc [+ 4]) float32, None in place of the raw maps)."""
        if self.input_size and tuple(images.shape[2:]) != self.input_size:
            raise UserError(f'{self.file} takes pictures of {_text(self.input_size)} pixels only')
        inputs = np.ascontiguousarray(images.numpy(), dtype=np.float32)
        parts = np.split(inputs, len(inputs)) if self.input_size else [inputs]
        decoded = torch.from_numpy(np.concatenate([self._run(part) for part in parts]))
        if decoded.dim() != 3 or decoded.shape[2] != 5 + self.nc + 4 * self.quads:
            raise UserError(f'{self.file} is damaged: it gives {tuple(decoded.shape)} for {self.nc} classes')
        return decoded, None


def load_detector(path: str | Path, device: torch.device | str = 'cpu') -> DetectionModel | ExportedModel:
    """The network of a checkpoint or of an exported file, ready for inference.

    Args:
        path: checkpoint (.pt), .onnx, .xml, a folder with one .xml, .torchscript, .ncnn.param or .tflite.
        device: exported files run on the CPU only.

    Returns:
        Callable with images (B, 3, H, W), 0..1 -> (decoded (B, M, 5 + nc), ...), with the attributes names, nc, stride,
        conf_threshold, word_scale, input_size ((H, W) of an export of one size, else None) and precision.

    Raises:
        UserError: no such file, not readable, not an export of ours, another device, or a package is missing.
    """
    if not is_exported(path):
        return load_model(path, device)
    if torch.device(device).type != 'cpu':
        raise UserError(f'{path} is an exported file, which runs on the CPU here: use --device cpu')
    file = _find(Path(path))
    openers = {
        '.onnx': _open_onnx,
        '.xml': _open_openvino,
        '.torchscript': _open_torchscript,
        '.param': _open_ncnn,
        '.tflite': _open_litert,
    }
    try:
        metadata, run = openers[file.suffix.lower()](file)
        return ExportedModel(file, metadata, run)
    except UserError:
        raise
    except Exception as error:  # each runtime has exceptions of its own for files that it cannot read
        raise UserError(f'{file} cannot be read as an exported model: {first_line(error)}') from None


def is_exported(path: str | Path) -> bool:
    """Whether a path names an exported file rather than a checkpoint."""
    return Path(path).suffix.lower() in SUFFIXES or Path(path).is_dir()


def default_device(path: str | Path) -> str:
    """The --device that an empty one stands for: exported files run on the CPU also where there is a GPU."""
    return 'cpu' if is_exported(path) else ''


def long_side(model: DetectionModel | ExportedModel, imgsz: int | None) -> int:
    """Pixels of the long side of a network's input: imgsz, else what it takes, was made for or trained at.

    Raises:
        UserError: imgsz is not what the export takes.
    """
    if isinstance(model, ExportedModel) and model.input_size and imgsz not in (None, max(model.input_size)):
        size, side = _text(model.input_size), max(model.input_size)
        raise UserError(f'{model.file} takes {size} pixels only: use --imgsz {side}')
    return imgsz or model.long_side


def import_package(name: str) -> Any:
    """Import a package of requirements-export.txt, or of LiteRT. Raises UserError that names it if it is missing."""
    if name in ('openvino', 'nncf'):
        # Both report their use to Intel as soon as they are imported, unless this package cannot be; neither needs it.
        sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    try:
        return import_onnxruntime() if name == 'onnxruntime' else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition('.')[0]:
            raise
        where = 'litert-torch==0.10.0' if error.name in LITERT else '-r requirements-export.txt'
        raise UserError(f'this needs the package {error.name}: pip install {where}') from None


def _find(path: Path) -> Path:
    """The file that a path means: itself, or the one .xml in a folder."""
    if path.is_dir():
        found = sorted(path.glob('*.xml'))
        if len(found) != 1:
            raise UserError(f'{path} has {len(found)} .xml files, expected the one of an exported model')
        return found[0]
    if not path.is_file():
        raise UserError(f'no such file: {path}')
    return path


def _text(size: tuple[int, ...]) -> str:
    return f'{size[1]}x{size[0]}'


def _open_onnx(file: Path) -> tuple[dict[str, Any], Run]:
    return open_onnx(file, threads=torch.get_num_threads())


def _open_openvino(file: Path) -> tuple[dict[str, Any], Run]:
    openvino = import_package('openvino')
    core = openvino.Core()
    graph = core.read_model(file)
    metadata = {}
    if graph.has_rt_info([FORMAT]):
        entries = graph.get_rt_info([FORMAT]).value
        metadata = {key: json.loads(entry) for key, entry in entries.items()}
    # float32 sums, as of every published figure; OpenVINO would choose bfloat16 where the processor has it.
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
    network = core.compile_model(graph, 'CPU', {**settings, 'PERFORMANCE_HINT': 'LATENCY'})
    return metadata, lambda images: network(images)[0]


def _open_torchscript(file: Path) -> tuple[dict[str, Any], Run]:
    with zipfile.ZipFile(file) as archive:
        entry = [name for name in archive.namelist() if name.endswith(f'/extra/{METADATA_FILE}')]
        with archive.open(entry[0]) if entry else io.BytesIO(b'{}') as stream:
            metadata = json.loads(stream.read(MAX_METADATA))  # what is longer is cut, and no JSON
    Metadata(file, metadata)  # refused before any of it runs
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)  # PyTorch deprecates TorchScript, and still runs it
        network = torch.jit.load(file, map_location='cpu')

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        with torch.autocast('cpu', enabled=False):
            return network(torch.from_numpy(images)).numpy()

    return metadata, run


def sidecar(file: Path) -> Path:
    """Where the metadata of a file lies whose format has no place for it."""
    return file.with_name(f'{file.name}.json')


def _read_sidecar(file: Path) -> dict[str, Any]:
    """The metadata beside a file, checked before anything of the file is read. Raises UserError."""
    beside = sidecar(file)
    if not beside.is_file():
        raise UserError(f'{file} is no export of ours: {beside.name}, which says what it is, is not beside it')
    with beside.open('rb') as stream:
        metadata = json.loads(stream.read(MAX_METADATA))
    Metadata(file, metadata if isinstance(metadata, dict) else {})
    return metadata


def _open_ncnn(file: Path) -> tuple[dict[str, Any], Run]:
    metadata = _read_sidecar(file)
    ncnn = import_package('ncnn')
    network = ncnn.Net()
    network.opt.num_threads = torch.get_num_threads()
    # float32 throughout, as of every published figure; ncnn would take half the bits where the processor has them.
    for name in ('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic', 'use_bf16_storage'):
        setattr(network.opt, name, False)
    if network.load_param(str(file)) or network.load_model(str(file.with_suffix('.bin'))):
        raise UserError(f'{file} is damaged, or its weights are not beside it: ncnn cannot read them')

    def run(images: np.ndarray) -> np.ndarray:
        extractor = network.create_extractor()
        extractor.input('images', ncnn.Mat(images[0]).clone())
        return np.array(extractor.extract('boxes')[1])[None]

    return metadata, run


def _open_litert(file: Path) -> tuple[dict[str, Any], Run]:
    metadata = _read_sidecar(file)
    reader = import_package('ai_edge_litert.interpreter')
    network = reader.Interpreter(str(file), num_threads=torch.get_num_threads())
    network.allocate_tensors()
    given, wanted = network.get_input_details()[0]['index'], network.get_output_details()[0]['index']

    def run(images: np.ndarray) -> np.ndarray:
        network.set_tensor(given, images)
        network.invoke()
        return network.get_tensor(wanted)

    return metadata, run
