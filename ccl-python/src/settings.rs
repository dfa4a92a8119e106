//! Keyword arguments as the plain structs of `ccl-core`.
//!
//! Times are seconds as a number, or a `datetime.timedelta`.

use std::net::SocketAddr;
use std::time::Duration;

use ccl_core::ids::UnitId;
use ccl_core::{
    Algorithm, CommunicatorConfig, Encoding, GroupId, MasterConfig, Options, ReduceOp, Roster,
    SyncOptions, SyncStrategy, Tag, Timers,
};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{about, invalid};

type Keywords<'a, 'py> = Option<&'a Bound<'py, PyDict>>;

/// A time given in Python.
pub fn duration(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = match value.extract::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => value
            .call_method0(intern!(value.py(), "total_seconds"))
            .and_then(|seconds| seconds.extract())
            .map_err(|_| no_time(value))?,
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        invalid(
            value.py(),
            format!("{seconds} is not a valid time in seconds"),
        )
    })
}

fn no_time(value: &Bound<'_, PyAny>) -> PyErr {
    let shown = value
        .repr()
        .map_or_else(|_| "this".to_owned(), |shown| shown.to_string());
    PyTypeError::new_err(format!(
        "{shown} is not a time: pass seconds as a number, or a datetime.timedelta"
    ))
}

/// A time, or `None` for no limit.
pub fn maybe_duration(value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if value.is_none() {
        return Ok(None);
    }
    duration(value).map(Some)
}

/// The operator of this name.
pub fn reduce_op(py: Python<'_>, name: &str) -> PyResult<ReduceOp> {
    let found = ReduceOp::ALL.into_iter().find(|op| op.name() == name);
    found.ok_or_else(|| {
        let all = ReduceOp::ALL.map(ReduceOp::name).join(", ");
        invalid(py, format!("op {name:?} is not one of {all}"))
    })
}

fn algorithm(value: &Bound<'_, PyAny>) -> PyResult<Algorithm> {
    match value.extract::<&str>()? {
        "auto" => Ok(Algorithm::Auto),
        "two_shot" | "direct" => Ok(Algorithm::TwoShot),
        "one_shot" => Ok(Algorithm::OneShot),
        "ring" => Ok(Algorithm::Ring),
        other => Err(invalid(
            value.py(),
            format!("algorithm {other:?} is not one of auto, one_shot, two_shot, ring"),
        )),
    }
}

fn encoding(value: &Bound<'_, PyAny>) -> PyResult<Option<Encoding>> {
    if value.is_none() {
        return Ok(None);
    }
    let name = value.extract::<&str>()?;
    let mut known = Encoding::ALL.into_iter();
    let found = known.find(|known| known.name() == name);
    found.map(Some).ok_or_else(|| {
        let all = Encoding::ALL.map(Encoding::name).join(", ");
        invalid(value.py(), format!("encoding {name:?} is not one of {all}"))
    })
}

/// Options of one call.
pub fn options(keywords: Keywords<'_, '_>) -> PyResult<Options> {
    let mut options = Options::default();
    each(keywords, "Options", |name, value| {
        match name {
            "tag" => options.tag = Tag(value.extract()?),
            "deadline" => options.deadline = maybe_duration(value)?,
            "attempts" => options.attempts = value.extract()?,
            "algorithm" => options.algorithm = algorithm(value)?,
            "encoding" => options.encoding = encoding(value)?,
            "seed" => options.seed = value.extract()?,
            "weight" => options.weight = value.extract()?,
            "caller" => options.caller = value.extract()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

/// Options of one sync, and the names of the entries that were touched.
pub fn sync<'py>(
    keywords: Keywords<'_, 'py>,
) -> PyResult<(SyncOptions, Option<Bound<'py, PyAny>>)> {
    let (mut options, mut touched) = (SyncOptions::default(), None);
    each(keywords, "SyncOptions", |name, value| {
        match name {
            "strategy" => options.strategy = strategy(value)?,
            "restore" => options.restore = value.extract()?,
            "deadline" => options.deadline = maybe_duration(value)?,
            "hash_threads" => options.hash_threads = value.extract()?,
            "touched" => touched = Some(value.clone()).filter(|value| !value.is_none()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((options, touched))
}

fn strategy(value: &Bound<'_, PyAny>) -> PyResult<SyncStrategy> {
    let name = value.extract::<&str>()?;
    let mut known = SyncStrategy::ALL.into_iter();
    known.find(|known| known.name() == name).ok_or_else(|| {
        let all = SyncStrategy::ALL.map(SyncStrategy::name).join(", ");
        invalid(value.py(), format!("strategy {name:?} is not one of {all}"))
    })
}

/// The members of a closed group, and this peer's place among them.
fn roster(members: Option<Vec<String>>, rank: Option<u32>) -> Result<Option<Roster>, &'static str> {
    match (members, rank) {
        (Some(members), Some(rank)) => Ok(Some(Roster { members, rank })),
        (None, None) => Ok(None),
        _ => Err(
            "members and rank are given together: the names of all members of a closed group, and \
             this peer's index among them",
        ),
    }
}

/// Settings of a peer.
pub fn communicator(master: &str, keywords: Keywords<'_, '_>) -> PyResult<CommunicatorConfig> {
    let mut config = CommunicatorConfig {
        master: master.to_owned(),
        ..CommunicatorConfig::default()
    };
    let (mut members, mut rank) = (None, None);
    each(keywords, "CommunicatorSettings", |name, value| {
        match name {
            "members" => members = value.extract()?,
            "rank" => rank = value.extract()?,
            "run" => config.run = value.extract()?,
            "name" => config.name = value.extract()?,
            "group" => config.group = GroupId(value.extract()?),
            "unit" => config.unit = value.extract::<Option<u64>>()?.map(UnitId),
            "unit_size" => config.unit_size = value.extract()?,
            "listen" => config.listen = maybe_address(value)?,
            "advertise" => config.advertise = value.extract()?,
            "lanes" => config.lanes = value.extract()?,
            "min_world_size" => config.min_world_size = value.extract()?,
            "initial_world_size" => config.initial_world_size = value.extract()?,
            "connect_timeout" => config.connect_timeout = duration(value)?,
            "operation_timeout" => config.operation_timeout = maybe_duration(value)?,
            "checksum" => config.checksum = value.extract()?,
            "scratch_bytes" => config.scratch_bytes = value.extract()?,
            "io_threads" => config.io_threads = value.extract()?,
            "congestion_control" => config.congestion_control = value.extract()?,
            "pacing_bytes_per_second" => config.pacing_bytes_per_second = value.extract()?,
            "state_bytes_per_second" => config.state_bytes_per_second = value.extract()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    config.roster = match (roster(members, rank), keywords) {
        (Ok(roster), _) => roster,
        (Err(what), Some(keywords)) => return Err(invalid(keywords.py(), what)),
        (Err(_), None) => None,
    };
    Ok(config)
}

/// Settings of a master.
pub fn master(keywords: Keywords<'_, '_>) -> PyResult<MasterConfig> {
    let mut config = MasterConfig::default();
    each(keywords, "MasterSettings", |name, value| {
        match name {
            "listen" => config.listen = address(value)?,
            "run" => config.run = value.extract()?,
            "journal" => config.journal = value.extract()?,
            "trust_journal" => config.trust_journal = value.extract()?,
            "fsync" => config.fsync = value.extract()?,
            "new_run" => config.new_run = value.extract()?,
            "members_gone" => config.members_gone = value.extract()?,
            "force_rebuild" => config.force_rebuild = value.extract()?,
            "link_round_trip" => config.paths.round_trip = maybe_duration(value)?,
            "link_bytes_per_second" => config.paths.bytes_per_second = value.extract()?,
            "reserve_bytes" => config.paths.reserve_bytes = value.extract()?,
            other => return timer(&mut config.timers, other, value),
        }
        Ok(true)
    })?;
    Ok(config)
}

fn timer(timers: &mut Timers, name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let field = match name {
        "heartbeat_interval" => &mut timers.heartbeat_interval,
        "peer_timeout" => &mut timers.peer_timeout,
        "reattach_grace" => &mut timers.reattach_grace,
        "blame_window" => &mut timers.blame_window,
        "link_timeout" => &mut timers.link_timeout,
        "rebuild_window" => &mut timers.rebuild_window,
        "detach_timeout" => &mut timers.detach_timeout,
        "verdict_timeout" => &mut timers.verdict_timeout,
        "post_timeout" => {
            timers.post_timeout = maybe_duration(value)?;
            return Ok(true);
        }
        _ => return Ok(false),
    };
    *field = duration(value)?;
    Ok(true)
}

fn address(value: &Bound<'_, PyAny>) -> PyResult<SocketAddr> {
    let text = value.extract::<&str>()?;
    text.parse().map_err(|_| {
        let what = format!("{text:?} is not an address to listen on, such as 0.0.0.0:48148");
        invalid(value.py(), what)
    })
}

fn maybe_address(value: &Bound<'_, PyAny>) -> PyResult<Option<SocketAddr>> {
    if value.is_none() {
        return Ok(None);
    }
    address(value).map(Some)
}

/// Passes each keyword to `set`, which returns whether it knows the name. `settings` is the name of
/// the known ones in `ccl.types`.
fn each<'py>(
    keywords: Keywords<'_, 'py>,
    settings: &str,
    mut set: impl FnMut(&str, &Bound<'py, PyAny>) -> PyResult<bool>,
) -> PyResult<()> {
    for (name, value) in keywords.into_iter().flatten() {
        let name = name.extract::<&str>()?;
        let is_known = set(name, &value).map_err(|error| about(value.py(), name, &error))?;
        if !is_known {
            let module = value.py().import("ccl._settings")?;
            let error = module.call_method1("unknown", (name, settings))?;
            return Err(PyErr::from_value(error));
        }
    }
    Ok(())
}
