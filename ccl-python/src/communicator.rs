//! `ccl.Communicator`: its lifetime and attributes. The collectives are in `collectives`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::connecting::{Connecting, close_at_exit};
use crate::errors::raise;
use crate::flight::Abandoned;
use crate::native::Native;
use crate::results::{Counters, View};
use crate::safe_point::SafePoint;
use crate::sync::Turn;
use crate::wait::wait_telling;

/// A peer of a run: ccl.Communicator(master, **settings). Leaves when it is closed or collected.
///
/// Blocks until this peer is admitted, at most connect_timeout. Every method may be called from any
/// thread. Settings, with their defaults; docs/configuration.md says more:
///
///   master                   "host:port" of the master (`ccl master`)
///   run                      "default": name of the run; a master of another run refuses the peer
///   name                     None: name of this peer in errors; None is host:process
///   group                    0: peers of one group reduce together; 64 bits
///   initial_world_size       min_world_size: peers that the group's first view waits for
///   min_world_size           1: fewer members raise TooFewPeers
///   unit, unit_size          None: failure unit of this peer, such as its host, and how many
///                            peers of it are admitted together
///   members, rank            None: names of the members of a closed group, in rank order, and this
///                            peer's index among them
///   listen                   None: "address:port" for the other peers; None is a free port
///   advertise                None: "host:port" to advertise, behind a port mapping
///   connect_timeout          90 s: until admitted, including the wait for the master
///   operation_timeout        600 s: deadline of calls without one; None: no deadline
///   lanes                    None: connections of each link; None is 1 on one host,
///                            else 4 at first, then 2 to 16 as the path needs
///   checksum                 True: CRC-32 over each data frame
///   scratch_bytes            32 MiB: memory for received contributions
///   io_threads               None: threads that move bytes; None is half the cores, 1 to 4
///   congestion_control       None: TCP's, such as "bbr", or "keep"; None is "auto": "cubic",
///                            and over long paths "bbr" where it helps, if permitted
///   pacing_bytes_per_second  None: limit on the bytes per second of each lane; None is
///                            as measured
///   state_bytes_per_second   None: limit on the shared-state bytes per second sent to others
///
/// Times are seconds or a timedelta.
#[pyclass(frozen, weakref, module = "ccl")]
#[derive(Debug)]
pub struct Communicator(
    pub Native<ccl_core::Communicator>,
    /// For syncs of shared state: one at a time.
    pub Arc<Turn>,
    /// Operations in progress without a handle.
    pub Abandoned,
);

#[pymethods]
impl Communicator {
    /// Joins a run: blocks until admitted, at most `connect_timeout`.
    #[new]
    #[pyo3(signature = (master, **settings))]
    fn new<'py>(
        py: Python<'py>,
        master: &str,
        settings: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Self>> {
        Connecting::start(py, master, settings)?.wait_admitted(py)
    }

    /// Starts to join a run, without waiting until this peer is admitted.
    #[staticmethod]
    #[pyo3(signature = (master, **settings))]
    fn connect_async<'py>(
        py: Python<'py>,
        master: &str,
        settings: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Connecting>> {
        let object = Bound::new(py, Connecting::start(py, master, settings)?)?;
        close_at_exit(py, object.as_any())?;
        Ok(object)
    }

    /// The id of this session, as shown in events and errors.
    #[getter]
    fn peer(&self) -> u64 {
        self.0.peer().0
    }

    /// What this peer waits for now, such as members that have not reached its safe point.
    #[getter]
    fn waits_for(&self) -> Option<String> {
        self.0.waits_for()
    }

    /// Rank in the view of the newest result.
    #[getter]
    fn rank(&self) -> u32 {
        self.0.rank().0
    }

    /// Number of members in the view of the newest result.
    #[getter]
    fn world_size(&self) -> u32 {
        self.0.world_size()
    }

    /// Epoch of the view of the newest result; each change of the members adds 1.
    #[getter]
    fn epoch(&self) -> u32 {
        self.0.view().vid.epoch.0
    }

    /// The view of the newest result. It changes only when a call returns.
    #[getter]
    fn view(&self) -> View {
        View(self.0.view())
    }

    /// Number of newcomers that the next `update_topology` may admit, as far as this peer knows.
    #[getter]
    fn pending_peers(&self) -> u32 {
        self.0.pending_peers()
    }

    /// Members of all groups of the run together. Counts of other groups may be outdated.
    #[getter]
    fn global_world_size(&self) -> u32 {
        self.0.census().global_world_size
    }

    /// Number of groups that have members. Other groups' counts may be outdated.
    #[getter]
    fn groups(&self) -> u32 {
        self.0.census().groups
    }

    /// Members of the largest group. Counts of other groups may be outdated.
    #[getter]
    fn largest_group(&self) -> u32 {
        self.0.census().largest_group
    }

    /// The `host:port` at which other peers reach this one.
    #[getter]
    fn listen_address(&self) -> String {
        self.0.listen_address().to_string()
    }

    /// Counters since the communicator was created.
    fn counters(&self) -> Counters {
        Counters(self.0.counters())
    }

    /// A safe point: admits newcomers that are ready. All members must call it equally often.
    ///
    /// A newcomer's first call is the one that the members make after the safe point that admitted
    /// it.
    fn update_topology(&self, py: Python<'_>) -> PyResult<View> {
        let start = py.detach(|| self.0.update_topology_async());
        let point = Native::new(start.map_err(|error| raise(py, &error))?);
        let waiting = || self.0.waiting();
        let end = wait_telling(py, waiting, |slice| point.wait_for(slice).transpose())?;
        end.map(View).map_err(|error| raise(py, &error))
    }

    /// Enters a safe point without waiting for the others.
    fn update_topology_async(slf: &Bound<'_, Self>) -> PyResult<SafePoint> {
        let (py, Self(native, ..)) = (slf.py(), slf.get());
        let start = py.detach(|| native.update_topology_async());
        let point = start.map_err(|error| raise(py, &error))?;
        Ok(SafePoint::new(point, slf.clone().unbind()))
    }

    /// Leaves the run; waits at most a second for the master's answer. Open calls end.
    fn close(&self, py: Python<'_>) {
        if !self.0.is_inherited() {
            py.detach(|| self.0.close());
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let (peer, rank, world_size) = (self.peer(), self.rank(), self.world_size());
        format!("Communicator(peer={peer}, rank={rank}, world_size={world_size})")
    }
}
