"""Tabular scikit-learn models from experiment to production, without leaving notebooks."""
