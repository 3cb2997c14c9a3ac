"""The checks behind `manage.py doctor`: pure judgements, and functions that ask each service once."""
