"""Words in a picture, without PyTorch: python examples/onnx_detect.py photo.jpg [best.onnx]"""

import sys

from ocrdistill import TextDetector

image, *model = sys.argv[1:]
for word in TextDetector(*model)(image):
    print(*word.quad.ravel().tolist(), word.score)
