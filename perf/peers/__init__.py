"""keystate beside other programs that run the same weights on the same keystrokes.

Each peer is a process of its own that is asked over a pipe or a socket and timed from outside, from
bytes written to bytes read. `python -m perf.peers --out perf/results/peers` runs those that are
installed.
"""
