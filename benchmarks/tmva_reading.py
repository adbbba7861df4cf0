"""How fast a large TMVA weight file is read, beside ElementTree with lists per node.

    python benchmarks/tmva_reading.py [MEGABYTES, default 200]

Each reader runs in a process of its own; CPU seconds and peak memory are its own too, imports included in the
memory. The file is synthetic: random trees of depth 4, 30 variables, laid out as TMVA writes them.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write(path: Path, megabytes: int) -> int:
    """A BDT of about that size; returns its number of nodes."""
    draw = random.Random(0)
    nodes = 0

    def node(pos: str, depth: int) -> str:
        nonlocal nodes
        nodes += 1
        numbers = f'res="{draw.gauss(0, 1):.16e}" rms="{draw.random():.16e}" purity="{draw.random():.16e}"'
        indent = "  " * (depth + 3)
        head = f'{indent}<Node pos="{pos}" depth="{depth}" NCoef="0" '
        if depth == 4:
            return f'{head}IVar="-1" Cut="{0:.16e}" cType="1" {numbers} nType="{draw.choice((-1, 1))}"/>\n'
        inside = node("l", depth + 1) + node("r", depth + 1)
        variable, cut, ctype = draw.randrange(30), draw.gauss(0, 1), draw.randrange(2)
        return (
            f'{head}IVar="{variable}" Cut="{cut:.16e}" cType="{ctype}" {numbers} nType="0">\n{inside}{indent}</Node>\n'
        )

    variables = "".join(f'<Variable VarIndex="{i}" Expression="x{i}" Min="-1" Max="1"/>\n' for i in range(30))
    with path.open("w") as file:
        file.write('<?xml version="1.0"?>\n<MethodSetup Method="BDT::BDT">\n<Options>\n')
        file.write('<Option name="BoostType" modified="Yes">AdaBoost</Option>\n</Options>\n')
        file.write(f'<Variables NVar="30">\n{variables}</Variables>\n<Weights AnalysisType="0">\n')
        trees = 0
        while file.tell() < megabytes << 20:
            tree = node("s", 0)
            head = f'    <BinaryTree type="DecisionTree" boostWeight="5.0000000000000000e-01" itree="{trees}">'
            file.write(f"{head}\n{tree}    </BinaryTree>\n")
            trees += 1
        file.write("</Weights>\n</MethodSetup>\n")
    return nodes


def by_elementtree(path: Path) -> None:
    """What readers in the field do: the document in memory, then lists of numbers per tree."""
    from xml.etree import ElementTree

    forest = []
    for tree in ElementTree.parse(path).getroot().findall("Weights/BinaryTree"):
        feature, cut, left, right, value = [], [], [], [], []
        stack = [(tree[0], -1, "")]
        while stack:
            node, parent, side = stack.pop()
            place = len(feature)
            if parent >= 0:
                (left if side == "l" else right)[parent] = place
            feature.append(int(node.get("IVar")))
            cut.append(float(node.get("Cut")))
            value.append((float(node.get("res")), float(node.get("purity")), int(node.get("nType"))))
            left.append(-1)
            right.append(-1)
            stack.extend((child, place, child.get("pos")) for child in node)
        forest.append((feature, cut, left, right, value, float(tree.get("boostWeight"))))


def by_modelhub(path: Path) -> None:
    """The file as a checked `Forest`."""
    from modelhub_tmva.bdt import bdt_of
    from modelhub_tmva.setup import setup_of
    from modelhub_tmva.stream import parse

    bdt_of(setup_of(parse(path)[0], str(path)), None)


def measured(reader: str, path: Path) -> tuple[float, float]:
    """CPU seconds and peak megabytes of a reader."""
    done = subprocess.run([sys.executable, __file__, reader, str(path)], capture_output=True, text=True, check=True)
    seconds, megabytes = done.stdout.split()
    return float(seconds), float(megabytes)


def main() -> None:
    """Write, measure, print."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.xml"
        nodes = write(path, megabytes)
        print(f"{path.stat().st_size / 1e6:.0f} MB, {nodes} nodes")
        peer, ours = measured("by_elementtree", path), measured("by_modelhub", path)
        print(f"ElementTree with lists  {peer[0]:6.2f} s CPU  {peer[1]:6.0f} MB")
        print(f"modelhub                {ours[0]:6.2f} s CPU  {ours[1]:6.0f} MB")
        print(f"ratio                   {ours[0] / peer[0]:6.2f}        {ours[1] / peer[1]:6.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        start = time.process_time()
        globals()[sys.argv[1]](Path(sys.argv[2]))
        print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    else:
        main()
