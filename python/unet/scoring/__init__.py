"""The scores of the ISBI 2012 and the cell tracking challenge."""
