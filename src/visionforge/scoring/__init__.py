"""Scores over weighted cases: what metrics are computed from, and the metrics of this package; imports no torch."""
