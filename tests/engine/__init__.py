"""Tests of fits and evaluations as functions."""
