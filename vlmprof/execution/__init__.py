"""Drives a plan: one process per cell, memory limits, time-outs, resuming."""
