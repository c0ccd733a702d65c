"""One training: bags, engine, fused step, distillation, checkpoint, record."""
