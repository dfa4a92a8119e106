"""Settings can be found: with ``help``, or from the error for a wrong name."""

import re

import pytest

import ccl
import ccl.types


def test_the_version_is_the_packages() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", ccl.__version__)


@pytest.mark.parametrize(
    ("owner", "settings"),
    [
        (ccl.Communicator, ccl.types.CommunicatorSettings),
        (ccl.Master, ccl.types.MasterSettings),
    ],
)
def test_help_lists_every_setting(owner: type, settings: type) -> None:
    listed = re.findall(r"^ {2}(\w+)(?:, (\w+))? ", owner.__doc__ or "", re.MULTILINE)
    names = {name for pair in listed for name in pair if name}
    assert names - {"master"} == set(settings.__annotations__)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("world_size", "did you mean 'initial_world_size'?"),
        ("lane", "did you mean 'lanes'?"),
        ("initial_worldsize", "did you mean 'initial_world_size'?"),
        ("peer_timeout", "the master sets it"),
        ("zzz", "known are advertise, checksum, "),
    ],
)
def test_a_wrong_setting_leads_to_the_right_one(wrong: str, remedy: str) -> None:
    with pytest.raises(TypeError) as caught:
        ccl.Communicator("127.0.0.1:1", **{wrong: 2})  # type: ignore[arg-type]
    assert f"unexpected keyword argument '{wrong}'; {remedy}" in str(caught.value)


def test_a_wrong_option_leads_to_the_right_one() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with ccl.Communicator(master.address) as communicator:
            with pytest.raises(TypeError, match="did you mean 'deadline'?"):
                communicator.barrier(timeout=3)  # type: ignore[call-arg]


def test_groups_are_told_apart_by_all_of_their_64_bits() -> None:
    with ccl.Master(listen="127.0.0.1:0", new_run=True) as master:
        with (
            ccl.Communicator(master.address, group=1) as low,
            ccl.Communicator(master.address, group=1 + (1 << 32)) as high,
            ccl.Communicator(master.address, group=(1 << 64) - 1) as highest,
        ):
            assert [each.world_size for each in (low, high, highest)] == [1, 1, 1]
            with pytest.raises(ccl.InvalidArgument, match="group: "):
                ccl.Communicator(master.address, group=1 << 64)
