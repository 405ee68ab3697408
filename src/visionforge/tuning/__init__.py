"""Hyperparameter search: space, study, trials and their report; a trial is an ordinary fit."""
