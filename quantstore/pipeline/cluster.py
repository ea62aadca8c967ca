"""An executor of a Dask cluster, of many machines or of this one.

The only module that knows Dask, which need not be installed.
"""

import socket
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

from quantstore.errors import QuantstoreError
from quantstore.process import pool

if TYPE_CHECKING:
    from distributed import Client

NOT_INSTALLED = "Dask is not installed"
# Of a file whose task failed. One whose worker died goes to three others before Dask gives it up
# (distributed.scheduler.allowed-failures).
RETRIES = 2
CONNECT_SECONDS = 10


class ClusterError(QuantstoreError):
    """A Dask cluster that cannot be used."""


@contextmanager
def dask_executor(scheduler: str | None = None, workers: int | None = None) -> Iterator[Executor]:
    """An executor, for the length of the block.

    Args:
        scheduler: the address of the scheduler, such as ``tcp://host:8786``; by default a cluster
            on this machine that ends with the block.
        workers: processes of a cluster on this machine, by default one per core.

    Raises:
        ClusterError: Dask is not installed, or no scheduler answers at the address.
    """
    try:
        import dask.config
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ClusterError(
            NOT_INSTALLED, "install it with: pip install 'quantstore[dask]'"
        ) from error
    with ExitStack() as stack:
        if scheduler is None:
            # A worker that died comes back, on a busy machine after more than the 15 seconds after
            # which a cluster would do without it.
            stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}))
            cluster = LocalCluster(
                n_workers=workers or pool.cores(),
                # One file at a time each; a share of the memory would end what is large and fits.
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address=None,
            )
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        else:
            client = stack.enter_context(_connected(scheduler))
        # pure: a file that is tried again must not get its earlier failure.
        yield cast(Executor, client.get_executor(pure=False, retries=RETRIES))


def _connected(scheduler: str) -> "Client":
    from distributed import Client
    from distributed.comm.addressing import get_address_host_port

    try:
        # A client that finds nobody tells so at the end of the process, with a traceback.
        address = get_address_host_port(scheduler, strict=True)
        socket.create_connection(address, CONNECT_SECONDS).close()
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except ValueError as error:
        raise ClusterError(
            f"{scheduler} is not the address of a Dask scheduler",
            "give it as in: --scheduler tcp://127.0.0.1:8786",
        ) from error
    except OSError as error:
        raise ClusterError(
            f"no Dask scheduler answers at {scheduler}", "start one with: dask scheduler"
        ) from error
