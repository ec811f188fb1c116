"""ncnn's two files, the graph (.param) and the weights (.bin), which pnnx makes of TorchScript."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from models.errors import UserError
from models.exported import import_package
from utils.export.network import FlatDecoding, trace

NAMES = {'in0': 'images', 'out0': 'boxes'}  # pnnx's, and those of our other formats


def save_ncnn(network: FlatDecoding, size: tuple[int, int], file: Path, half: bool) -> None:
    """Write file (.ncnn.param) and its weights beside it (.ncnn.bin), in float16 with `half`.

    Args:
        network: what is converted.
        size: (H, W) of the pictures, pixels.

    Raises:
        UserError: pnnx is missing, or does not convert the network.
    """
    pnnx = import_package('pnnx')
    with tempfile.TemporaryDirectory() as place:  # pnnx writes six more files beside its input
        trace(network, size).save(f'{place}/network.pt')
        shape = f'inputshape=[1,3,{size[0]},{size[1]}]'
        command = [pnnx.EXEC_PATH, 'network.pt', shape, f'fp16={int(half)}']
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, errors='replace', check=False)
        graph, weights = Path(place, 'network.ncnn.param'), Path(place, 'network.ncnn.bin')
        if done.returncode or not (graph.is_file() and weights.is_file()):
            lines = (done.stderr or done.stdout).strip().splitlines() or ['it said nothing']
            raise UserError(f'pnnx does not convert the network: {lines[-1]}')
        text = re.sub(r'\b(in0|out0)\b', lambda found: NAMES[found[0]], graph.read_text(encoding='ascii'))
        file.write_text(text, encoding='ascii')
        shutil.copyfile(weights, file.with_suffix('.bin'))
