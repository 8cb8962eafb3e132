"""RunPod: pods, clusters and volumes through its REST API, version 2."""
