"""What a run records of itself, and what it shows.

progress.py             metrics, read a step late, so that the devices never wait for them
console.py              what is printed; plots.py: what is drawn
writers.py              writes each row into metrics.jsonl and passes it to the other writers (start here)
tensorboard.py, weights_and_biases.py    two other writers
patient_file.py         a file that a full disk does not damage
history.py              all starts of a run; best.py: its best score
"""
