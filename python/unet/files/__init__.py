"""Files that are whole or absent, marked, guarded; names of files."""
