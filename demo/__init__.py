"""A static web page that answers questions with a distilled student: what builds it and what serves it. src/ is the page."""
