"""How well the default of `nelbo fit` ranks anomalies on many tables, beside other detectors on the same rows.

python -m benchmarks.quality --data FOLDER --seeds 0 1 2 --out FILE.csv
"""
