"""What gptjax does with files and folders: atomic writes, locks, JSON that may be damaged, paths that users type."""

from gptjax.files.atomic import SUFFIX as SUFFIX
from gptjax.files.atomic import AsideFile as AsideFile
from gptjax.files.atomic import append_line as append_line
from gptjax.files.atomic import file_entry as file_entry
from gptjax.files.atomic import file_hash as file_hash
from gptjax.files.atomic import folder_aside as folder_aside
from gptjax.files.atomic import write_aside as write_aside
