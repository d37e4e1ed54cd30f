"""Jobs as PyTorchJobs of a Kubernetes cluster: a backend in the service, and what runs around the trainer in a pod."""
