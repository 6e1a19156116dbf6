"""What gptjax does with files and folders.

atomic.py           writes whole files or none
folders.py          one process at a time in a folder; the folder of caches
json_files.py       JSON that may be damaged
paths.py            paths that users type
"""

from gptjax.files.atomic import SUFFIX, AsideFile, append_line, file_entry, file_hash, folder_aside, write_aside

__all__ = ["SUFFIX", "AsideFile", "append_line", "file_entry", "file_hash", "folder_aside", "write_aside"]
