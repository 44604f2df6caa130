"""What a person submits: each module is one command, `nas-ray NAME` and `python -m jobs.NAME`."""
