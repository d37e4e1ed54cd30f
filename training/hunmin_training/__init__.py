"""Pretraining as a story: corpus → tokenizer → pretrain → export → evaluate. Each is a command of `hunmin-train`."""
