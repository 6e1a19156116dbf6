"""Devices on named axes, the table that splits parameters over them, and many processes as one."""
