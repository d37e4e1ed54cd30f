"""What computes a model, behind one Protocol: the engine of this process, a vLLM server, a TGI server."""
