"""From a stack and its labels to a trained network, judged on what was held out."""
