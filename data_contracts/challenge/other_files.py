"""Files beside videos and crops that are not inputs by their suffix."""

from collections.abc import Collection

from data_contracts.vocabulary import suffixes

OTHER = "files of other kinds, such as pictures, sound and texts"
NO_VIDEO = "files whose content is not a video"
ARCHIVES, UNPACKED = "archives; unpack them", "archives with an unpacked folder beside them"
OTHER_ARCHIVES = "archives of crops or annotations by their name"
ANNOTATED = "annotated copies that score --annotate wrote"
PIPES = "pipes or devices"
UNFINISHED = "incomplete, temporary or backup files by their suffix"
# No input is lost if files are skipped for these reasons.
HARMLESS_REASONS = frozenset((OTHER, UNPACKED, OTHER_ARCHIVES, ANNOTATED))
_OTHER_SUFFIXES = suffixes(
    "jpg jpeg jpe jfif png bmp webp tif tiff heic heif avif svg ico psd raw cr2 cr3 nef dng arw thm exr pgm ppm eps",
    "mp3 wav flac aac m4a m4b mka opus oga wma aif aiff amr mid",
    "txt csv tsv json jsonl xml yaml yml toml ini cfg conf md rst pdf doc docx odt rtf xls xlsx ods ppt pptx html htm",
    "log nfo url webloc lnk srt vtt ass ssa sub idx lrc md5 sha1 sha256 sfv torrent m3u m3u8 pls mpd xspf cue xmp eaf",
    "py sh bat m ipynb mat npy npz h5 hdf5 pkl pickle pt pth onnx parquet pq feather arrow db sqlite safetensors pts",
    # Cameras and DVDs: previews of videos in low resolution, indexes, playlists, settings.
    "lrv lrf cpi bdm bdmv mpl mpls clpi tdt tid ifo bup bnp ctg aae gpx",
)
_ARCHIVE_SUFFIXES = suffixes("zip rar 7z tar gz tgz bz2 xz zst z01 001 iso dmg")
_UNFINISHED_SUFFIXES = suffixes(
    "part partial crdownload download opdownload filepart aria2 ytdl tmp temp bak old orig swp"
)


def reason_by_suffix(name: str, folders: Collection[str]) -> str | None:
    """Return why a file of this name is not an input, or None. ``folders``: names of the folders beside it."""
    stem, dot, suffix = name.rpartition(".")
    suffix = f"{dot}{suffix.lower()}" if stem else ""
    if suffix in _OTHER_SUFFIXES:
        return OTHER
    # Editors save backups as clip.mp4~ and #clip.mp4#.
    if suffix in _UNFINISHED_SUFFIXES or suffix.endswith(("~", "#")):
        return UNFINISHED
    if suffix in _ARCHIVE_SUFFIXES:
        return UNPACKED if stem.removesuffix(".tar") in folders else ARCHIVES
    return None
