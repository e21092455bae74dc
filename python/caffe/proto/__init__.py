"""Caffe's messages: caffe.proto, and caffe_pb2, which protoc generates from it."""
