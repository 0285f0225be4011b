"""diffcontrol: can a diffusion language model be controlled where an autoregressive one cannot?"""
