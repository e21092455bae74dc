"""What each layer type of Caffe is in operators of ONNX, one file a family."""
