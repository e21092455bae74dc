"""What a person looks at: pictures, the report of a run, and what it finds out."""
