"""Everything between the data and the network."""

import os

# For OpenCV, which asks when it is first imported. Pillow refuses as many, of its own.
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', '178956970')
