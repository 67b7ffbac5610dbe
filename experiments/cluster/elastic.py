"""torchrun with the exit status of the run.

torchrun itself ends with 1 whatever its processes ended with, and a scheduler could not tell a run
that was asked to stop (75) from one that failed. It passes a signal on to the processes.
"""

import sys

from torch.distributed.elastic.agent.server.api import SignalException  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == "__main__":
    try:
        main()
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        sys.exit(75 if codes == {75} else 1)
    except SignalException:
        sys.exit(75)
