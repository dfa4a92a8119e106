"""The error for an unknown keyword argument, with a suggestion."""

import difflib

from ccl import types

#: Names that other libraries use, and that are not similar to ours.
_REMEDIES = {
    "CommunicatorSettings": {
        "world_size": "did you mean 'initial_world_size'?",
        "timeout": "did you mean 'connect_timeout' or 'operation_timeout'?",
        "rank": "the master assigns ranks, in the order of admission",
        "port": "did you mean 'listen'?",
        "address": "did you mean 'listen' or 'advertise'?",
        "master_addr": "the master's HOST:PORT is the first argument",
        "peer_timeout": "the master sets it for all peers: ccl.Master(peer_timeout=…)",
        "heartbeat_interval": "the master sets it for all peers: ccl.Master(heartbeat_interval=…)",
    },
    "MasterSettings": {
        "port": "did you mean 'listen'?",
        "address": "did you mean 'listen'?",
        "timeout": "did you mean 'peer_timeout'?",
        "world_size": "peers set it: ccl.Communicator(…, initial_world_size=…)",
    },
    "Options": {
        "timeout": "did you mean 'deadline'?",
        "retries": "did you mean 'attempts'?",
        "async_op": "did you mean the method whose name ends in '_async'?",
    },
}


def unknown(name: str, settings: str) -> TypeError:
    """The error for an argument ``name`` that ``settings`` of ``ccl.types`` does not have."""
    known = sorted(getattr(types, settings).__annotations__)
    remedy = _REMEDIES.get(settings, {}).get(name)
    if remedy is None:
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
    return TypeError(f"got an unexpected keyword argument '{name}'; {remedy}")
