"""A search over recorded curves: study, samplers and stopping rules of a real one, without Ray and without training."""
