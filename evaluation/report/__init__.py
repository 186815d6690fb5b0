"""The report on runs: one HTML page that can be mailed and printed, and the same as Markdown.

    run folders (runs.py) ──> sections of blocks (document.py) ──> report.html (page.py), report.md (markdown.py)

What a section says is decided once, for both: progress.py (summary, losses, held-out curves), forecasts.py, worth.py
(retention, size and speed), browser.py (where student and teacher differ), records.py (configuration, incidents, files).
"""
