"""What all commands share: their start and end, flags, help, and messages about wrong flags."""
