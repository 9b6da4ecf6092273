"""What serves stays light: no torch, no transformers, nothing read or opened by an import."""

import subprocess
import sys

_PROBE = """
import builtins, io, sys
import numpy, onnxruntime, tokenizers
before = set(sys.modules)
import classifiers.labels, classifiers.shipped, classifiers.text, classifiers.triage, classifiers.refusal
import classifiers.screen, classifiers.cascade
new = set(sys.modules) - before
heavy = {name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'sklearn', 'finetune', 'gateway'}
assert not heavy, heavy
foreign = {name.split('.')[0] for name in new} - {'classifiers', 'numpy'} - set(sys.stdlib_module_names)
assert not foreign, foreign
"""


def test_classifiers_import_nothing_heavy_and_nothing_of_ours():
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
