"""Timer, against genuine Caffe's."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys, time
import caffe

class Tick:
    def __init__(self):
        self.told = []
    def __call__(self, timer, seconds=0):
        time.sleep(seconds)
        self.told.append(timer.ms)

tick = Tick()
timer = caffe.Timer()
tick(timer)          # 0: before any start
timer.stop()
tick(timer)          # 1: stopped before any start
timer.start()
tick(timer, 0.1)     # 2: reading stops
tick(timer, 0.1)     # 3: so it stays
timer.stop()
tick(timer)          # 4: stopping again changes nothing
timer.start()
time.sleep(0.3)
timer.start()        # a second start changes nothing
tick(timer, 0.1)     # 5
before = time.monotonic()
timer.start()
tick(timer)          # 6: a start after a stop begins anew
json.dump([tick.told, 1000 * (time.monotonic() - before)], sys.stdout)
"""


@pytest.mark.parametrize("whose", ["ours", "genuine"])
def test_it_measures_from_the_first_start_to_stop_or_reading(whose, request):
    if whose == "ours":
        done = subprocess.run(
            ["env", "GLOG_minloglevel=0", sys.executable, "-c", SCRIPT],
            capture_output=True,
            text=True,
        )
    else:
        done = request.getfixturevalue("genuine").command(
            "env", "GLOG_minloglevel=0", "python3", "-c", SCRIPT
        )
    told, passed = json.loads(done.stdout)
    assert told[:2] == [0, 0]
    assert told[2] >= 99
    assert told[3] == told[4] == told[2]
    assert told[5] >= 399
    # Microseconds are the finest that genuine Caffe counts.
    assert told[6] < passed + 1
    # Said twice, and to standard error.
    assert done.stderr.count("Timer has never been run before reading time.") == 2
