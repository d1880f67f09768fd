"""SQLite files made by earlier versions, with every feature asleep in them, which this version has to continue.

`program.py` has the functions, `make.py` writes a file with them, `test_continue.py` continues every file that is here.
"""
