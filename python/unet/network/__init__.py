"""The U of Fig. 1, its loss and its geometry; the authors' network of 2015."""
