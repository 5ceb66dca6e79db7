"""Reading videos: what the rest of the program imports.

``index_video`` says which frames a file holds, ``VideoIndex`` is its answer, ``read_segment`` decodes any run
of them. How each is done lies in ``video_packets``, ``video_index`` and ``video_frames``. Nothing here looks
for faces.
"""

from data_contracts.video_frames import read_segment
from data_contracts.video_index import VideoIndex, VideoSource
from data_contracts.video_packets import index_video

__all__ = ["VideoIndex", "VideoSource", "index_video", "read_segment"]
