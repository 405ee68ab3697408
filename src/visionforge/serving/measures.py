"""What is counted of a service, as Prometheus reads it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Measures:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "visionforge_requests", "Requests that were answered.", ("path", "status"), registry=registry
        )
        self.seconds = Histogram(
            "visionforge_predict_seconds", "Time of a request for predictions.", buckets=SECONDS, registry=registry
        )
        self.pictures = Counter("visionforge_pictures", "Pictures of which something was said.", registry=registry)
        self.errors = Counter("visionforge_picture_errors", "Pictures that could not be read.", registry=registry)
        self.batches = Histogram(
            "visionforge_batch_pictures", "Pictures that shared a pass.", buckets=PICTURES, registry=registry
        )
        self.waiting = Gauge("visionforge_waiting_pictures", "Pictures in work, or waiting.", registry=registry)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)
