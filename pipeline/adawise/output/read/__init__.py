"""Reading a root from outside: which files hold each row once, footers, and rows of some streams and times."""
