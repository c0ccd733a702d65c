"""Samplers, one a file: each is made anew for every suggestion, and keeps nothing but what the study says."""
