"""The benchmark of fan-out: scripts/bench_fanout.py."""
