"""Execution of a plan: one process per cell, memory limits, timeouts, resuming.

sweep ──▶ launchers ──▶ supervisor ──▶ processes ┊ worker ──▶ pipelines ──▶ measure ──▶ Row
one process per sweep, without torch             ┊ one process per cell
"""
