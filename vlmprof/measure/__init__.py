"""Measurement of callables: clocks, memory and statistics. Knows no model."""
