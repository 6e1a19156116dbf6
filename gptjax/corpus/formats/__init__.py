"""What is in a file → its text: pure functions of strings and bytes, a module a format. Files are opened elsewhere."""
