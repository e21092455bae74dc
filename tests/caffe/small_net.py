"""A net that trains in no time, for tests of programs."""

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "wanted"
  dummy_data_param { shape { dim: 2 dim: 3 } data_filler { value: 1 } data_filler { value: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { value: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "wanted" top: "loss" }
"""
