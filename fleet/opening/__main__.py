"""`python -m fleet.opening`: a process that opens batches; see `fleet.opening.worker`."""

from fleet.opening.worker import main

if __name__ == "__main__":
    main()
