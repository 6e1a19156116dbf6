"""What all commands share: their start and end, flags, help, and messages about wrong flags.

cli.py              starts and ends every command (start here); commands.py: the list of commands
flags.py            the flags of a command; flag_messages.py: what is said about wrong ones; help.py: --help
runtime.py          how a process compiles and runs programs; kept_memory.py: it reuses the memory that it frees
driver_messages.py  leaves out what XLA writes on a machine without a GPU driver
typed_lines.py      lines that a person types
"""
