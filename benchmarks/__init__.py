"""What is measured, beside what; `python -m benchmarks` runs the comparisons of speed, the other files run alone."""
