"""Cells over time: detections, links, the cell tracking challenge's format."""
