"""The U of Fig. 1, its loss and its geometry, as prototxt; the authors' network of 2015."""
