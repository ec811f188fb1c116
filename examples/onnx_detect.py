"""Words in a picture, without PyTorch: python examples/onnx_detect.py photo.jpg [best.onnx]"""

import sys

from ocrdistill import TextDetector, UserError

if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
image, *model = sys.argv[1:]
try:
    for word in TextDetector(*model)(image):
        print(*word.quad.ravel().tolist(), word.score)
except UserError as error:
    sys.exit(f'error: {error}')
