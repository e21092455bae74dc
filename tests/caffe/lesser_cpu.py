"""Let pytest believe in a lesser machine: pytest -p tests.caffe.lesser_cpu ...

LLVM is told that the processor is the least of its kind, without AVX and FMA; where LESSER_CPU is
"no compiler", llvmlite is as good as not installed.
"""

import os
import sys

if os.environ.get("LESSER_CPU") == "no compiler":
    sys.modules["llvmlite"] = None
else:
    from llvmlite import binding

    binding.get_host_cpu_name = lambda: "x86-64"
    binding.get_host_cpu_features = binding.targets.FeatureMap
