"""OpenVINO IR of an ONNX graph."""

import json
from pathlib import Path

from models.exported import import_package
from ocrdistill.metadata import FORMAT


def to_openvino(onnx_graph):
    """openvino.Model of an ONNX graph (onnx.ModelProto)."""
    return import_package('openvino').Core().read_model(onnx_graph.SerializeToString())


def save_openvino(graph, file: Path, metadata: dict, half: bool) -> None:
    """Write file (.xml) and its weights beside it (.bin), in float16 with `half`; the sums stay the device's choice."""
    openvino = import_package('openvino')
    for key, value in metadata.items():
        graph.set_rt_info(json.dumps(value), [FORMAT, key])
    openvino.save_model(graph, file, compress_to_fp16=half)
