"""This engine held against genuine Caffe."""
