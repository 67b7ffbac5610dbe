"""``python -m tests.fuzz``; workers import the loop by its name."""

from tests.fuzz.loop import main

if __name__ == "__main__":
    main()
