"""Retention: whole files go that are old enough, and a name says with which segment each chain begins since then."""
