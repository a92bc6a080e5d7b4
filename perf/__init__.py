"""Measures keystate from outside: a client over stdio, benchmarks, recorded results."""
