"""ONNX graphs: the network's, and NMS behind it."""

import json
from pathlib import Path

import numpy as np
import torch

from models.exported import import_package
from utils.export.network import Decoding, quiet

SMALLEST_HALVED = 1000  # values of a tensor; the bytes of smaller ones do not count
OPSET = 18  # what PyTorch's exporter itself writes; ONNX Runtime, its web build and OpenVINO all read it


def to_onnx(network: Decoding, size: tuple[int, int], dynamic: bool):
    """The network as an ONNX graph, simplified, without traces of the machine that made it.

    The exporter is PyTorch's newer one (dynamo=True): it knows that sizes are multiples of 32, and the older one is
    deprecated.

    Args:
        size: (H, W) in pixels, multiples of 32.
        dynamic: leave open how many pictures there are and how large they are.

    Returns:
        onnx.ModelProto: input images (B, 3, H, W), output boxes (B, M, 5 + nc), with quads 5 + nc + 4.
    """
    onnxslim = import_package('onnxslim')
    import_package('onnxscript')  # what the exporter needs
    dim = torch.export.Dim
    shapes = None
    if dynamic:
        shapes = {'images': {0: dim('batch'), 2: 32 * dim('rows'), 3: 32 * dim('columns')}}
    example = torch.zeros(2, 3, 256, 320) if dynamic else torch.zeros(1, 3, *size)
    with quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=['images'],
            output_names=['boxes'],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            verbose=False,
        )
        graph = onnxslim.slim(program.model_proto)
    _clean(graph)
    if dynamic:
        _name_axes(graph.graph.input[0], {0: 'batch', 2: 'height', 3: 'width'})
        _name_axes(graph.graph.output[0], {0: 'batch', 1: 'cells'})
    return graph


def halve_weights(model) -> None:
    """Store the weights of a graph (onnx.ModelProto) in float16, cast back to float32: what runs it casts once, as it
    loads the file, and computes as before."""
    onnx = import_package('onnx')
    casts, weights = [], list(model.graph.initializer)
    for weight in weights:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALLEST_HALVED:
            continue
        half = onnx.numpy_helper.from_array(values.astype(np.float16), f'{weight.name}_half')
        casts.append(onnx.helper.make_node('Cast', [half.name], [weight.name], to=onnx.TensorProto.FLOAT))
        model.graph.initializer.remove(weight)
        model.graph.initializer.append(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _clean(model) -> None:
    """Drop what the exporter notes for debugging: lines of source with the paths of this machine, inner shapes."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for entry in (*model.graph.node, *model.graph.input, *model.graph.output):
        del entry.metadata_props[:]
        entry.doc_string = ''
    model.doc_string = model.graph.doc_string = ''
    model.graph.name = 'ocrdistill'


def _name_axes(value, names: dict[int, str]) -> None:
    for axis, name in names.items():
        value.type.tensor_type.shape.dim[axis].dim_param = name


# In ONNX's own notation. Boxes go into NonMaxSuppression as x1, y1, x2, y2, where it expects y first: overlaps are the
# same. A box has one class, its best: the scores of the others become 0.
NMS = """<ir_version: {ir}, opset_import: ["" : {opset}]>
nms (float[batch, cells, {columns}] decoded) => (float[found, {outputs}] detections, int64[found] picture)
<int64[{parts}] parts = {{2, 2, 1, {nc}{edge_part}}}, float half = {{0.5}}, float zero = {{0.0}},
 int64[1] last = {{2}}, int64[1] one = {{1}}, int64[1] max_det = {{{max_det}}},
 float[1] iou_thres = {{{iou_thres}}}, float[1] conf_thres = {{{conf_thres}}},
 int64 first = {{0}}, int64[1] class_column = {{1}}, int64[2] box_place = {{0, 2}}, int64[3] score_place = {{0, 2, 1}}>
{{
    centre, size, objectness, classes{edges} = Split <axis = 2> (decoded, parts)
    half_size = Mul (size, half)
    low = Sub (centre, half_size)
    high = Add (centre, half_size)
    boxes_all = Concat <axis = 2> (low, high)
    scores_all = Mul (objectness, classes)
    best = ReduceMax <keepdims = 1> (scores_all, last)
    is_best = Equal (scores_all, best)
    scores = Where (is_best, scores_all, zero)
    by_class = Transpose <perm = [0, 2, 1]> (scores)
    chosen = NonMaxSuppression (boxes_all, by_class, max_det, iou_thres, conf_thres)
    picture = Gather <axis = 1> (chosen, first)
    box_at = Gather <axis = 1> (chosen, box_place)
    score_at = Gather <axis = 1> (chosen, score_place)
    class_number = Gather <axis = 1> (chosen, class_column)
    box = GatherND (boxes_all, box_at)
    score_row = GatherND (scores, score_at)
    score = Unsqueeze (score_row, one)
    category = Cast <to = 1> (class_number)
{quads}    detections = Concat <axis = 1> (box, score, category{corners})
}}"""
# Corners as utils.quads.decode has them: each from a corner of the box, moved by the edges that lean away from it.
CORNERS = {
    'x_tl': ('Add', 'x0', 'left_minus', 'width'),
    'y_tl': ('Add', 'y0', 'top_minus', 'height'),
    'x_tr': ('Sub', 'x1', 'right', 'width'),
    'y_tr': ('Add', 'y0', 'top', 'height'),
    'x_br': ('Sub', 'x1', 'right_minus', 'width'),
    'y_br': ('Sub', 'y1', 'bottom_minus', 'height'),
    'x_bl': ('Add', 'x0', 'left', 'width'),
    'y_bl': ('Sub', 'y1', 'bottom', 'height'),
}


def _decode_quads() -> str:
    """The lines of NMS that turn the chosen boxes and their edges into corners."""
    lines = [
        'edge_row = GatherND (edges, box_at)',
        't, b, l, r = Split <axis = 1, num_outputs = 4> (edge_row)',
        'x0, y0, x1, y1 = Split <axis = 1, num_outputs = 4> (box)',
        'width = Sub (x1, x0)',
        'height = Sub (y1, y0)',
    ]
    for name, edge in (('top', 't'), ('bottom', 'b'), ('left', 'l'), ('right', 'r')):
        lines += [
            f'{name} = Relu ({edge})',
            f'{name}_negative = Neg ({edge})',
            f'{name}_minus = Relu ({name}_negative)',
        ]
    for name, (sign, start, lean, side) in CORNERS.items():
        lines += [f'{name}_by = Mul ({lean}, {side})', f'{name} = {sign} ({start}, {name}_by)']
    return ''.join(f'    {line}\n' for line in lines)


def append_nms(model, nc: int, conf_thres: float, iou_thres: float, max_det: int, quads: bool = False):
    """Let an ONNX graph end with the choice of boxes: as detect.py's without quads, but max_det counts for each class.

    Overlaps are those of upright boxes, also where there are quads: ONNX has no other NMS.

    Args:
        model: of `to_onnx`.
        conf_thres: confidence (objectness * class score) that a box must exceed.
        iou_thres: overlap with a better box of its class above which a box goes.
        max_det: boxes of a class in a picture at most.
        quads: whether the graph gives edges.

    Returns:
        onnx.ModelProto: outputs detections (N, 6): x1, y1, x2, y2 in pixels of the input, score, class, with quads
        (N, 14): then x, y of the four corners, clockwise; and picture (N,) int64: the number in the batch of
        the picture that each is from. By picture, then class, best first.
    """
    onnx = import_package('onnx')
    import_package('onnx.compose')
    limits = {'conf_thres': float(conf_thres), 'iou_thres': float(iou_thres), 'max_det': max_det}
    form = {'parts': 4, 'edge_part': '', 'edges': '', 'quads': '', 'corners': '', 'outputs': 6, 'columns': 5 + nc}
    if quads:
        corners = ', '.join(('', *CORNERS))
        form = {'parts': 5, 'edge_part': ', 4', 'edges': ', edges', 'quads': _decode_quads(), 'corners': corners}
        form |= {'outputs': 14, 'columns': 9 + nc}
    text = NMS.format(ir=model.ir_version, opset=OPSET, nc=nc, **form, **limits)
    return onnx.compose.merge_models(model, onnx.parser.parse_model(text), io_map=[('boxes', 'decoded')])


def save_onnx(graph, file: Path, metadata: dict) -> None:
    """Check a graph (onnx.ModelProto) and write it; each key of the metadata becomes a JSON text."""
    onnx = import_package('onnx')
    onnx.helper.set_model_props(graph, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(graph, full_check=True)
    file.write_bytes(graph.SerializeToString())
