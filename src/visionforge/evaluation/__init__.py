"""Evaluation: metrics, predictions, figures, tables and the files that a test leaves behind."""
