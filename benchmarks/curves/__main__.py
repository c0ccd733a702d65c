"""`python -m benchmarks.curves`."""

from benchmarks.curves.record import main

if __name__ == "__main__":
    main()
