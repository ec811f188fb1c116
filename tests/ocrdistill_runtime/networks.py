"""Networks of a few operators whose answers are known, as .onnx files with export.py's metadata."""

import json
from pathlib import Path

import numpy as np

ABOUT = {
    'format': 'ocrdistill',
    'version': 1,
    'names': {'0': 'text'},
    'quads': True,
    'stride': 32,
    'imgsz': [640, 640],
    'dynamic': True,
    'precision': 'float32',
    'conf_threshold': 0.3,
    'word_scale': [1.0, 1.0],
    'points': {
        '640': {'conf_threshold': 0.3, 'word_scale': [1.0, 1.0]},
        '960': {'conf_threshold': 0.4, 'word_scale': [1.0, 1.0]},
        '1280': {'conf_threshold': 0.5, 'word_scale': [1.0, 1.0]},
    },
    'source': {'file': 'best.pt', 'options': {}},
}
# The objectness of every cell is multiplied by how red the input is where there is a picture, and by 0 on mere grey.
GRAPH = """<ir_version: 8, opset_import: ["" : 18]>
red (float[batch, 3, height, width] images) => (float[batch, found, {columns}] boxes)
<int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[2] places = {{2, 3}}, float[{columns}] scale = {{{scale}}},
 float[{columns}] rest = {{{rest}}}>
{{
    red = Slice (images, zero, one, one)
    most = ReduceMax <keepdims = 0> (red, places)
    share = Unsqueeze (most, one)
    weight = Mul (share, scale)
    factor = Add (weight, rest)
    boxes = Mul (cells, factor)
}}"""


def write_network(file: Path, rows: list[list[float]], **about) -> Path:
    """A network that finds the given cells in every image.

    Args:
        rows: x, y, w, h in pixels of the input, objectness (times the largest red of the input, 0..1), class scores,
            and with quads t, b, l, r.
        about: changes of its metadata.
    """
    import onnx

    columns = len(rows[0])
    scale = [0.0] * columns
    scale[4] = 1.0
    text = GRAPH.format(
        columns=columns,
        scale=', '.join(map(str, scale)),
        rest=', '.join(str(1 - value) for value in scale),
    )
    model = onnx.parser.parse_model(text)
    cells = onnx.numpy_helper.from_array(np.array([rows], np.float32), 'cells')
    model.graph.initializer.append(cells)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in (ABOUT | about).items()})
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())
    return file
