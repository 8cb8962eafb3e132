"""The laptop side: experiment to job to files to engine; and `boot`, which runs inside the image."""
