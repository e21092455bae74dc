"""`python -m caffe`: the `caffe` program."""

import sys

from caffe.command import main

if __name__ == "__main__":
    # As messages are to name it.
    sys.argv[0] = "caffe"
    main()
