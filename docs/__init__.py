"""How the course notes become notebooks and a site: ``python -m docs``, or ``make docs``."""
