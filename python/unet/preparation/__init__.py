"""Labels, borders and w(x): a training set."""
