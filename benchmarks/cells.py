"""From a CSV file to a grouped cross-validation, audit, report and ONNX: the cells of BCCD's blood smears.

`python -m benchmarks.cells BCCD FOLDER` cuts every box of Pascal VOC's annotations out of its smear, writes cells and
`cells.csv` (path, label, smear) into FOLDER, and runs the commands that it prints. A smear is a group: cells of one lie
beside each other, have its stain and focus, and overlap.
"""

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

COMMANDS = (
    "datasets import {folder}/cells.csv --name bccd_cells --group-column smear --rotation any --vflip --replace",
    "datasets check bccd_cells",
    "fit --data.dataset bccd_cells --data.fold_pool all --folds 5 --model.backbone.name mini_cnn "
    "--model.backbone.pretrained false --model.optimizer.name adamw --model.optimizer.learning_rate 0.003 "
    "--trainer.max_epochs {epochs} --trainer.accelerator cpu --log_level warning",
    "audit latest",
    "export --run latest",
)


def cut(source: Path, folder: Path) -> int:
    """Write every box as a picture, and the table of them; return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with (folder / "cells.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "smear"])
        for path in sorted((source / "Annotations").glob("*.xml")):
            smear = Image.open(source / "JPEGImages" / f"{path.stem}.jpg")
            for number, each in enumerate(ElementTree.parse(path).getroot().iter("object")):
                box = each.find("bndbox")
                corners = [int(float(box.findtext(name))) for name in ("xmin", "ymin", "xmax", "ymax")]
                if corners[2] - corners[0] < 8 or corners[3] - corners[1] < 8:
                    continue
                name = f"{path.stem}_{number}.png"
                smear.crop(corners).save(folder / name)
                table.writerow([name, each.findtext("name"), path.stem])
                count += 1
    return count


def main() -> None:
    """Cut the cells out and run the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with Annotations and JPEGImages")
    parser.add_argument("folder", type=Path, help="where the cells go")
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    print(f"{cut(given.source, given.folder):,} cells")
    for command in COMMANDS:
        arguments = command.format(folder=given.folder, epochs=given.epochs).split()
        print(f"\n$ visionforge {' '.join(arguments)}", flush=True)
        started = time.monotonic()
        status = subprocess.run([sys.executable, "-m", "visionforge", *arguments], check=False).returncode
        print(f"# {time.monotonic() - started:.0f} s, exit status {status}", flush=True)


if __name__ == "__main__":
    main()
