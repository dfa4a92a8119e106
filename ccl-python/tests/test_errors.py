"""Failures raise exceptions that say what to do."""

import copy
import pickle
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import ccl
import numpy as np
import pytest
from peers import HANG_SECONDS, Peer, Pipe, connect, run, started


def lonely_port() -> int:
    """A port on which probably nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_no_master_is_a_connection_error_with_its_address() -> None:
    address = f"127.0.0.1:{lonely_port()}"
    with pytest.raises(ccl.MasterUnreachable, match="ccl master") as caught:
        ccl.Communicator(address, connect_timeout=timedelta(milliseconds=300))
    assert caught.value.address == address
    assert isinstance(caught.value, ConnectionError) and isinstance(caught.value, ccl.Error)


def test_errors_are_named_as_they_are_imported() -> None:
    classes = [value for value in vars(ccl).values() if isinstance(value, type)]
    errors = [value for value in classes if issubclass(value, ccl.Error)]
    assert len(errors) == 21 and {error.__module__ for error in errors} == {"ccl"}
    told = "".join(traceback.format_exception_only(ccl.PeerLost("gone")))
    assert told == "ccl.PeerLost: gone\n"
    assert isinstance(pickle.loads(pickle.dumps(ccl.PeerLost("gone"))), ccl.PeerLost)


TYPO = """
import ccl
ccl.Communicator("127.0.0.1:%d", connect_timeout=2.5)
"""


def test_a_wrong_port_is_told_of_while_it_is_waited_for() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TYPO % lonely_port()],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    told, *traceback_lines = ended.stderr.splitlines()
    assert told.startswith("waiting for the master at 127.0.0.1:"), ended.stderr
    assert "refused the connection" in told and "ccl master" in told
    assert traceback_lines[-1].startswith("ccl.MasterUnreachable: could not reach a master")


def test_a_peer_without_company_is_not_admitted() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with pytest.raises(ccl.NotAdmitted, match="min_world_size"):
            ccl.Communicator(master.address, min_world_size=2, connect_timeout=0.3)


def test_peers_have_names_and_addresses() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address, name="ann") as communicator:
            view = communicator.view
            assert view.names == ["ann"] and view.addresses == [[communicator.listen_address]]
            assert communicator.waits_for is None
        with pytest.raises(ccl.InvalidArgument, match="name must be 1 to 64 bytes"):
            ccl.Communicator(master.address, name="")


def test_a_closed_communicator_says_so() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            pass
        communicator.close()
        with pytest.raises(ccl.Ended, match="it left") as caught:
            communicator.barrier()
        assert isinstance(caught.value, ccl.SessionOver)


def test_another_run_is_refused() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True, run="mine") as master:
        with pytest.raises(ccl.Refused) as caught:
            ccl.Communicator(master.address, run="yours", connect_timeout=HANG_SECONDS)
        assert caught.value.reason is not None


def survive(pipe: Pipe, address: str) -> tuple[str | None, int | None, float]:
    with connect(address, 3) as communicator:
        values = np.full(100_000, 1.0)
        communicator.all_reduce(values)
        pipe.say(communicator.peer)
        victim = pipe.wait()
        if communicator.peer == victim:
            threading.Event().wait()
        handle = communicator.all_reduce_async(values)
        pipe.say("called")
        with pytest.raises(ccl.PeerLost, match="call again") as caught:
            handle.wait()
        assert isinstance(caught.value, ccl.Retryable)
        assert values[0] == 3.0, "the input is intact"
        outcome = communicator.all_reduce(values)
        assert outcome.world_size == communicator.world_size == 2
        assert caught.value.op is not None and caught.value.epoch == communicator.epoch
        return caught.value.reason, caught.value.peer, float(values[-1])


def tell(peers: list[Peer], value: object) -> None:
    for peer in peers:
        peer.pipe.send(value)


def test_a_killed_peer_is_named_and_the_call_succeeds_without_it() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with started(3, survive, master.address) as peers:
            names = [peer.receive() for peer in peers]
            tell(peers, names[0])
            for peer in peers[1:]:
                assert peer.receive() == "called"
            peers[0].process.kill()
            for peer in peers[1:]:
                reason, lost, value = peer.receive()
                assert lost == names[0]
                assert "process ended" in reason
                assert value == 6.0


def differ(communicator: ccl.Communicator) -> str:
    values = np.zeros(4 + communicator.rank)
    with pytest.raises(ccl.Cancelled) as caught:
        communicator.all_reduce(values)
    assert caught.value.peer is not None and caught.value.op is not None
    return str(caught.value.reason)


def test_calls_that_differ_are_cancelled_with_both_values() -> None:
    for reason in run(2, differ):
        assert "count" in reason and "4" in reason and "5" in reason


def wait_in_vain(communicator: ccl.Communicator) -> None:
    if communicator.rank == 0:
        with pytest.raises(ccl.DeadlinePassed, match="deadline") as caught:
            communicator.all_reduce(bytearray(4), deadline=0.2)
        communicator.barrier(tag=1)
    else:
        communicator.barrier(tag=1)
        with pytest.raises(ccl.DeadlinePassed, match="deadline") as caught:
            communicator.all_reduce(bytearray(4))
    # One of the two timed out, and the other is late.
    told = {caught.value.peer, *(caught.value.late or [])}
    assert (caught.value.peer == communicator.peer) == (communicator.rank == 0) and len(told) == 2


def test_a_deadline_cancels_for_everybody() -> None:
    run(2, wait_in_vain)


def be_silent(pipe: Pipe, address: str) -> tuple[int, int | None, int | None, str | None]:
    with connect(address, 2) as communicator:
        epoch = communicator.epoch
        pipe.say("connected")
        pipe.wait()
        # Stopped here, and resumed after the eviction.
        with pytest.raises(ccl.Evicted, match="connect again") as caught:
            communicator.barrier()
        assert caught.value.epoch == epoch
        return communicator.peer, caught.value.peer, caught.value.epoch, caught.value.reason


def outlive(pipe: Pipe, address: str) -> None:
    with connect(address, 2) as communicator:
        pipe.say("connected")
        with pytest.raises(ccl.PeerLost):
            communicator.all_reduce(bytearray(8), tag=1)


def test_an_evicted_peer_is_told_its_name_the_view_and_the_reason() -> None:
    settings: Any = {"heartbeat_interval": 0.1, "peer_timeout": 0.5}
    with ccl.Master(listen="127.0.0.1:0", new_run=True, **settings) as master:
        with (
            started(1, be_silent, master.address) as [silent],
            started(1, outlive, master.address) as [other],
        ):
            assert silent.receive() == other.receive() == "connected"
            silent.signal(signal.SIGSTOP)
            assert other.receive() is None
            silent.signal(signal.SIGCONT)
            silent.pipe.send("go on")
            own, peer, epoch, reason = silent.receive()
            assert peer == own and epoch is not None and "silent" in str(reason)


def test_errors_keep_their_facts_through_pickle() -> None:
    error = ccl.PeerLost("peer 3 was lost", peer=3, epoch=2, reason="silent", op="x")
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is ccl.PeerLost
    assert (twin.peer, twin.epoch, twin.reason, str(twin)) == (3, 2, "silent", "peer 3 was lost")
    lost = pickle.loads(pickle.dumps(ccl.StateMismatch("nobody has it", fault="no_source")))
    assert (lost.fault, lost.peer, twin.fault) == ("no_source", None, None)
    assert issubclass(ccl.Timeout, TimeoutError) and issubclass(ccl.OsError, OSError)
    changes: list[Callable[[ccl.Error], Any]] = [
        lambda error: pickle.loads(pickle.dumps(error)),
        copy.copy,
        copy.deepcopy,
    ]
    for change in changes:
        with pytest.raises(ccl.OsError) as caught:
            ccl.Master(listen="192.0.2.1:1")
        refused = caught.value
        refused.add_note("seen twice")
        twin = change(refused)
        assert type(twin) is ccl.OsError and str(twin) == str(refused)
        assert twin.errno == refused.errno is not None and twin.__notes__ == ["seen twice"]


@pytest.mark.parametrize("time", ["5", None, b"5", [5]])
def test_a_time_of_another_type_is_refused_with_what_to_pass(time: Any) -> None:
    told = "not a time: pass seconds as a number, or a datetime.timedelta"
    with pytest.raises(TypeError, match=told):
        ccl.Communicator("127.0.0.1:1", connect_timeout=time)
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            if time is not None:
                with pytest.raises(TypeError, match=told):
                    communicator.barrier(deadline=time)
                with pytest.raises(TypeError, match=told):
                    master.wait(time)
            communicator.barrier(deadline=timedelta(seconds=5))


def test_a_taken_port_is_an_os_error_with_its_number() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with pytest.raises(ccl.OsError, match="cannot listen") as caught:
            ccl.Master(listen=master.address)
        assert caught.value.errno is not None
