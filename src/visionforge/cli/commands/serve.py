"""`visionforge serve`: a network behind an HTTP address."""

import argparse

from visionforge.cli.arguments import CommandParser, add_import_flag
from visionforge.cli.command import Command
from visionforge.streams import say


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    return parser().run(arguments, _serve)


def parser() -> CommandParser:
    """Return the parser."""
    from visionforge.inference.loading import ACCELERATORS
    from visionforge.serving import server, settings

    made = CommandParser(
        prog="visionforge serve",
        description="Answer HTTP requests with what a network says of their pictures, and a page to drop pictures on, "
        "until Ctrl-C or SIGTERM. Routes: / (the page), POST /predict, /health, /metrics, /contract.",
    )
    add = made.add_argument
    text = "a run (folder, or name in the outputs folder), a checkpoint file, or an exported .onnx or .safetensors file"
    add("source", metavar="SOURCE", help=text)
    add_import_flag(made)
    text = f"address to listen at; default {server.HOST}, this machine alone; everybody who reaches it may ask"
    add("--host", default=server.HOST, help=text)
    text = f"port; default {server.PORT}; 0 is one that is free, which is printed"
    add("--port", type=int, default=server.PORT, help=text)
    text = "names by which browsers may ask; default those of this machine at a loopback address, any at others"
    add("--allowed_hosts", nargs="+", metavar="NAME", help=text)
    text = f"pictures of a pass at most, of masks and boxes tiles; default {settings.BATCH_SIZE}"
    add("--batch_size", type=int, default=settings.BATCH_SIZE, metavar="N", help=text)
    text = f"so long a batch waits for pictures that are on the way; default {settings.MAX_WAIT_MS:g}"
    add("--max_wait_ms", type=float, default=settings.MAX_WAIT_MS, metavar="MS", help=text)
    text = f"bytes of a request, in millions; default {settings.MAX_UPLOAD_MB:g}"
    add("--max_upload_mb", type=float, default=settings.MAX_UPLOAD_MB, metavar="MB", help=text)
    text = f"pixels of a picture, looked at before it is decoded; default {settings.MAX_REQUEST_PIXELS}"
    add("--max_pixels", type=int, default=settings.MAX_REQUEST_PIXELS, metavar="N", help=text)
    text = f"pictures in work or waiting; what is beyond is told to ask again (503); default {settings.MAX_QUEUE}"
    add("--max_queue", type=int, default=settings.MAX_QUEUE, metavar="N", help=text)
    add("--tta", action="store_true", default=None, help="average over test-time views; default as the network is set")
    add("--no-tta", "--no_tta", dest="tta", action="store_false", help="take each picture as it is")
    add("--accelerator", choices=ACCELERATORS, default="auto", help="device; default auto, the best one present")
    add("--num_threads", type=int, metavar="N", help="CPU threads of the network, and of reading pictures")
    return made


def _serve(options: argparse.Namespace) -> int:
    from visionforge.serving.server import serve

    source = options.source
    serve(**vars(options), ready=lambda address: say(f"{source}: {address} (Ctrl-C ends it)"))
    say("stopped; everything was answered")
    return 0


COMMAND = Command(
    "serve",
    "answer HTTP requests with what a network says of their pictures, and a page to drop pictures on",
    run,
    place=75,
)
