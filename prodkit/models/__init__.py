"""Estimators: built around a frozen schema, fitted, scored with uncertainty, and packed into one artifact."""
