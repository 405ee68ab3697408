"""Classifiers that scikit-learn fits to features, as layers that take a network's last layer's place."""
