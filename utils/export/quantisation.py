"""8-bit quantisation of an OpenVINO graph, and what it costs."""

from collections.abc import Callable

import numpy as np
import torch

from models.exported import ExportedModel, import_package
from models.yolo import DetectionModel
from utils.evaluation.report import evaluate_split
from utils.evaluation.split import EvaluationSplit, require_class_count
from utils.export.network import quiet
from utils.export.options import ExportOptions
from utils.loading.config import load_data_config
from utils.runtime.words import counted

BATCH_SIZE = 16
TARGET = 1.0  # points of mAP50 that may be lost


class Quantiser:
    """Quantises a network on the training pictures and evaluates it on the validation split.

    Args:
        options: data, imgsz, dynamic, calibration of export.py.
        model: the network in float32.

    Raises:
        UserError: no such data, or data of other classes.
    """

    def __init__(self, options: ExportOptions, model: DetectionModel):
        data = load_data_config(options.data)
        require_class_count(model, options.weights, data)
        self.options, self.model, self.data = options, model, data

    def quantise(self, graph):
        """openvino.Model in float32 -> its quantised copy."""
        images = self._split('train')
        count = min(self.options.calibration, len(images))
        chosen = np.linspace(0, len(images) - 1, count).round().astype(int).tolist()  # spread over the split
        print(f'calibrating 8-bit ranges on {counted(count, "picture")} of {self.data.file}: train')
        return quantise(graph, chosen, lambda i: images[0, i].image[None].numpy() / np.float32(255))

    def evaluate(self, exported: ExportedModel) -> str:
        """mAP50 of the export and of the float32 network on val, printed and returned as one line."""
        split = self._split('val')
        print(split.summary)
        reference, found = (
            evaluate_split(network, split, torch.device('cpu'), title=title).scores['map50']
            for network, title in ((self.model, 'float32'), (exported, 'int8'))
        )
        lost = 100 * (reference - found)
        text = f'{found:.4f}, in float32 {reference:.4f}: a loss of {lost:.2f} points '
        text += f'({counted(len(split), "picture")} of {self.data.file}: val)'
        print(f'mAP50 {text}')
        if lost > TARGET:
            print(f'warning: int8 loses {lost:.1f} points of mAP50, more than {TARGET:g}')
        return text

    def _split(self, name: str) -> EvaluationSplit:
        squares = not self.options.dynamic
        return EvaluationSplit(self.data, name, self.options.imgsz[0], batch_size=BATCH_SIZE, squares=squares)


def quantise(graph, numbers: list[int], load: Callable[[int], np.ndarray]):
    """The graph with 8-bit convolutions, by NNCF's post-training quantisation.

    The decoding behind the head's last convolutions stays in float: 8 bits of a picture 640 pixels wide are steps of
    2.5 pixels.

    Args:
        graph: openvino.Model.
        numbers: of the training pictures that the ranges of activations are measured on.
        load: a number -> (1, 3, H, W) float32, 0..1.
    """
    with quiet():
        nncf = import_package('nncf')
        return nncf.quantize(
            graph,
            nncf.Dataset(numbers, load),
            preset=nncf.QuantizationPreset.MIXED,  # activations of SiLU lie on both sides of 0
            subset_size=len(numbers),
            ignored_scope=nncf.IgnoredScope(names=_decoding(graph)),
        )


def _decoding(graph) -> list[str]:
    """Names of all operations behind the last convolutions."""
    found, waiting = {}, [graph.get_results()[0]]
    while waiting:
        operation = waiting.pop()
        for source in operation.input_values():
            node = source.get_node()
            # A convolution's bias is an Add of its own in OpenVINO; it may be ignored with the rest.
            if node.get_type_name() not in ('Convolution', 'Constant', 'Parameter') and node.get_name() not in found:
                found[node.get_name()] = node
                waiting.append(node)
    quantisable = ('Add', 'Multiply', 'Subtract', 'Power', 'Concat', 'Sigmoid', 'Split', 'VariadicSplit')
    return [node.get_friendly_name() for node in found.values() if node.get_type_name() in quantisable]
