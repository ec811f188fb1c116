"""Everything between the data and the network."""

import os

# For OpenCV, which asks when it is first imported.
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', '178956970')  # Pillow refuses as many, of its own
os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')  # a broken file is reported once, by us
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
