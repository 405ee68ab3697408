"""The learning-rate schedules: one file each, with settings and the rate as a closed form of the step."""
