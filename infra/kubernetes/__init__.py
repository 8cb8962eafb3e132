"""The target Kubernetes: documents, built as data, and the cluster that they are sent to."""
