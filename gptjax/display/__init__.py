"""What a person reads: safe terminal output, numbers in a few characters, differences, the style of plots."""
