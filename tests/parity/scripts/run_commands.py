"""Run the `caffe` program, this engine's or genuine Caffe's, several times.

Given: NAME|arguments, the command line of each run, as JSON; NAME|signals, what to send it, as JSON
[[signal's name, text to await in its log], ...]; folder, where it runs. Each run is a process of
its own. Results: NAME|status, NAME|out, NAME|err.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback

import numpy as np

import caffe
from exchange import give, given

GENUINE = not hasattr(caffe, "CaffeError")
SECONDS = 900


def start(arguments, out, err):
    """Start the program; return a function that tells its status, or None, and one that signals."""
    if GENUINE:
        process = subprocess.Popen(["caffe", *arguments], stdout=out, stderr=err)
        return process.poll, process.send_signal
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        # A fork of this process, which has imported the engine already.
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.argv = ["caffe", *arguments]
        from caffe.command import main

        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def poll():
        ended, status = os.waitpid(number, os.WNOHANG)
        if not ended:
            return None
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    return poll, lambda which: os.kill(number, which)


def run(name, arguments, signals):
    """Run the program once."""
    paths = [f"{name}.{stream}" for stream in ("out", "err")]
    with open(paths[0], "w") as out, open(paths[1], "w") as err:
        poll, send = start(arguments, out, err)
        deadline = time.monotonic() + SECONDS
        status, seen = None, 0
        while status is None:
            if time.monotonic() > deadline:
                send(signal.SIGKILL)
            with open(paths[1]) as log:
                text = log.read()
            if signals and signals[0][1] in text[seen:]:
                seen = len(text)
                send(getattr(signal, signals.pop(0)[0]))
            time.sleep(0.02)
            status = poll()
    results = {f"{name}|status": np.array(status)}
    for path in paths:
        with open(path) as file:
            results[f"{name}|{path.rsplit('.')[-1]}"] = np.array(file.read())
    return results


def main():
    """Run all."""
    arrays = given()
    os.chdir(str(arrays["folder"]))
    results = {}
    for key, value in arrays.items():
        name, _, what = key.partition("|")
        if what == "arguments":
            signals = json.loads(str(arrays.get(f"{name}|signals", "[]")))
            results.update(run(name, json.loads(str(value)), signals))
    give(results)


if __name__ == "__main__":
    main()
