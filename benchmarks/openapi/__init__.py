"""Requests made from /openapi.json, and whether the answers are those that it declares."""
