"""What a run needs and how long it takes on devices that need not exist, from the program that would run there."""
