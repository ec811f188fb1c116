"""One export from checkpoint to card."""

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from models.checkpoint import read_checkpoint, restore
from models.errors import UserError
from models.exported import METADATA_FILE, ExportedModel, import_package, load_detector, sidecar
from ocrdistill.nms import BOX_IOU
from ocrdistill.points import Point
from utils.export.card import machine, write_card
from utils.export.check import BOUNDS, compare, compare_nms, make_batches, measure
from utils.export.metadata import describe
from utils.export.network import Decoding, FlatDecoding, drop_traces, to_torchscript
from utils.export.options import ExportOptions
from utils.runtime.run_folder import write_json, write_text
from utils.runtime.words import counted, megabytes

PACKAGES = {
    'onnx': ('onnx', 'onnxscript', 'onnxslim', 'onnxruntime'),
    'openvino': ('onnx', 'onnxscript', 'onnxslim', 'openvino'),
    'torchscript': (),
    'ncnn': ('pnnx', 'ncnn'),
    'tflite': ('litert_torch', 'ai_edge_litert'),
}


class ExportJob:
    """Export a checkpoint as export.py's options say.

    Args:
        options: of export.py.

    Raises:
        UserError: no such checkpoint, a package is missing.
    """

    def __init__(self, options: ExportOptions):
        for package in PACKAGES[options.format] + (('nncf',) if options.int8 else ()):
            import_package(package)
        self.options = options
        checkpoint = read_checkpoint(options.weights)
        self.model = restore(checkpoint).eval().requires_grad_(False).fuse()
        options.imgsz = options.imgsz or (self.model.long_side,) * 2
        self.network = Decoding(self.model, half=options.float16 and options.format == 'onnx')
        stored = options.float16 or options.small
        self.precision = 'float16' if stored else 'int8' if options.int8 else 'float32'
        self.metadata = describe(
            checkpoint,
            self.model,
            size=options.imgsz,
            dynamic=options.dynamic,
            precision=self.precision,
            licence=options.license,
        )
        self.facts: dict[str, str] = {'parameters': f'{sum(p.numel() for p in self.model.parameters()):,}'}

    def write(self, file: Path, images: list[np.ndarray]) -> None:
        """Write the file, what belongs to it, and its card, into one folder.

        Args:
            file: named as its format wants it.
            images: (h, w, 3) uint8 RGB, to compare and to time on.

        Raises:
            UserError: what was written does not compute what PyTorch does.
        """
        self.batches = make_batches(images, self.options.imgsz, self.options.dynamic)
        writers = {
            'onnx': self._onnx,
            'openvino': self._openvino,
            'torchscript': self._torchscript,
            'ncnn': self._ncnn,
            'tflite': self._tflite,
        }
        writers[self.options.format](file)
        self.facts['size'] = megabytes(sum(part.stat().st_size for part in file.parent.iterdir()))
        write_text(file.with_name(f'{file.name}.card.md'), write_card(self.metadata, file, self.facts))

    def _onnx(self, file: Path) -> None:
        from utils.export.onnx_graph import append_nms, halve_weights, save_onnx, to_onnx

        graph = to_onnx(self.network, self.options.imgsz, self.options.dynamic)
        if self.options.small:
            halve_weights(graph)
        save_onnx(graph, file, self.metadata)
        decode = load_detector(file)
        self._check(decode)
        if self.options.nms:
            default = Point(self.metadata['conf_threshold']).threshold
            given = {name: getattr(self.options, name) for name in ('conf_thres', 'iou_thres', 'max_det')}
            nms = {'conf_thres': default, 'iou_thres': BOX_IOU, 'max_det': 300}
            nms |= {name: value for name, value in given.items() if value is not None}
            self.metadata['nms'] = nms
            save_onnx(append_nms(graph, self.model.nc, quads=self.model.quads, **nms), file, self.metadata)
            self._check_nms(decode, file, nms)

    def _openvino(self, file: Path) -> None:
        from utils.export.onnx_graph import to_onnx
        from utils.export.openvino_ir import save_openvino, to_openvino

        graph = to_openvino(to_onnx(self.network, self.options.imgsz, self.options.dynamic))
        if self.options.int8:
            from utils.export.quantisation import Quantiser

            quantiser = Quantiser(self.options, self.model)
            graph = quantiser.quantise(graph)
        save_openvino(graph, file, self.metadata, self.options.float16)
        if self.options.int8:
            self.facts['mAP50 on val'] = quantiser.evaluate(load_detector(file))
            self._time(load_detector(file))
        else:
            self._check(load_detector(file))

    def _torchscript(self, file: Path) -> None:
        module = to_torchscript(self.network, self.options.imgsz, self.options.dynamic)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)
            torch.jit.save(module, file, _extra_files={METADATA_FILE: json.dumps(self.metadata)})
        drop_traces(file)
        self._check(load_detector(file))

    def _ncnn(self, file: Path) -> None:
        from utils.export.ncnn_files import save_ncnn

        size = self.options.imgsz
        save_ncnn(FlatDecoding(self.model, size), size, file, self.options.float16)
        write_json(sidecar(file), self.metadata)
        self._check(load_detector(file))

    def _tflite(self, file: Path) -> None:
        from utils.export.litert_file import save_litert

        save_litert(FlatDecoding(self.model, self.options.imgsz), self.options.imgsz, file)
        write_json(sidecar(file), self.metadata)
        self._check(load_detector(file))

    def _check(self, exported: ExportedModel) -> None:
        """Compare with PyTorch in float32, then measure. Raises UserError over the bound."""
        difference = compare(self.model, exported, self.batches)
        text = f'scores {difference.scores:.1e}, boxes {difference.boxes:.1e} of their longer side'
        print(f'largest difference from PyTorch in float32, on {len(self.batches)} batches: {text}')
        bound = BOUNDS[self.precision]
        if max(difference) > bound:
            raise UserError(f'the exported network computes something else ({text}; bound {bound}); nothing is written')
        self.facts['largest difference from PyTorch in float32'] = text
        self._time(exported)

    def _check_nms(self, decode: ExportedModel, file: Path, nms: dict) -> None:
        session = import_package('onnxruntime').InferenceSession(str(file), providers=['CPUExecutionProvider'])
        count = compare_nms(decode, lambda images: session.run(None, {'images': images}), self.batches, nms)
        same = 'detect.py' if not self.model.quads else 'PyTorch, by upright boxes: ONNX has no NMS of quads'
        print(f'NMS inside the graph: the same {counted(count, "box", "boxes")} as {same}')

    def _time(self, exported: ExportedModel) -> None:
        milliseconds = measure(exported, self.batches[0])
        place = machine(torch.get_num_threads())
        self.facts['network, one picture'] = f'{milliseconds:.1f} ms (median of 20; {place})'
        print(f'network: {milliseconds:.1f} ms a picture ({place})')
