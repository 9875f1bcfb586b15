"""Drives a plan: one process per cell, memory limits, time-outs, resuming.

sweep ──▶ launchers ──▶ supervisor ──▶ processes ┊ worker ──▶ pipelines ──▶ measure ──▶ Row
free of torch, one process per sweep             ┊ one process per cell
"""
