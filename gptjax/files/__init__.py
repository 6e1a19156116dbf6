"""What gptjax does with files and folders: atomic writes, locks, JSON that may be damaged, paths that users type."""

from gptjax.files.atomic import SUFFIX, AsideFile, append_line, file_entry, file_hash, folder_aside, write_aside

__all__ = ["SUFFIX", "AsideFile", "append_line", "file_entry", "file_hash", "folder_aside", "write_aside"]
