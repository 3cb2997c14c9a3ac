"""Django's PostgreSQL backend, with the rule of `offsets.outages` for errors, and session settings that a pooler keeps.

Django loads `base.py` by the setting DATABASES["default"]["ENGINE"].
"""
