//! The collectives of `ccl.Communicator`: buffers in, outcomes and handles out.

use std::sync::Arc;

use ccl_core::{Collective, Dtype, Rank, ReduceOp};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat};

use crate::communicator::Communicator;
use crate::errors::{internal, invalid};
use crate::flight::{Flight, Part, Plan};
use crate::handle::Handle;
use crate::memory::{Keep, Memory, Use};
use crate::results::Outcome;
use crate::settings;

type Object<'a, 'py> = &'a Bound<'py, PyAny>;

#[pymethods]
impl Communicator {
    /// Reduces a buffer of the same length from every member, in place or into `out`.
    #[pyo3(signature = (buffer, op = "sum", *, out = None, **options))]
    fn all_reduce(
        slf: &Bound<'_, Self>,
        buffer: Object<'_, '_>,
        op: &str,
        out: Option<Object<'_, '_>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Outcome> {
        let parts = vec![reduce_part(buffer, out)?];
        run(slf, plan(all_reduced(slf.py(), op)?, options)?, parts)
    }

    /// Starts an all-reduce.
    #[pyo3(signature = (buffer, op = "sum", *, out = None, **options))]
    fn all_reduce_async(
        slf: &Bound<'_, Self>,
        buffer: Object<'_, '_>,
        op: &str,
        out: Option<Object<'_, '_>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Handle> {
        let parts = vec![reduce_part(buffer, out)?];
        start(slf, plan(all_reduced(slf.py(), op)?, options)?, parts)
    }

    /// Reduces a list of buffers, in place, as one transaction.
    #[pyo3(signature = (buffers, op = "sum", **options))]
    fn all_reduce_many(
        slf: &Bound<'_, Self>,
        buffers: Vec<Bound<'_, PyAny>>,
        op: &str,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Outcome> {
        let parts = reduce_parts(&buffers)?;
        run(slf, plan(all_reduced(slf.py(), op)?, options)?, parts)
    }

    /// Starts to reduce a list of buffers, in place, as one transaction.
    #[pyo3(signature = (buffers, op = "sum", **options))]
    fn all_reduce_many_async(
        slf: &Bound<'_, Self>,
        buffers: Vec<Bound<'_, PyAny>>,
        op: &str,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Handle> {
        let parts = reduce_parts(&buffers)?;
        start(slf, plan(all_reduced(slf.py(), op)?, options)?, parts)
    }

    /// Collects every member's `send` in `out`, in rank order.
    #[pyo3(signature = (send, out, **options))]
    fn all_gather(
        slf: &Bound<'_, Self>,
        send: Object<'_, '_>,
        out: Object<'_, '_>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Outcome> {
        let world_size = slf.get().0.world_size();
        let plan = plan(Collective::AllGather { world_size }, options)?;
        run(slf, plan, vec![gather(slf.py(), world_size, send, out)?])
    }

    /// Starts an all-gather.
    #[pyo3(signature = (send, out, **options))]
    fn all_gather_async(
        slf: &Bound<'_, Self>,
        send: Object<'_, '_>,
        out: Object<'_, '_>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Handle> {
        let world_size = slf.get().0.world_size();
        let plan = plan(Collective::AllGather { world_size }, options)?;
        start(slf, plan, vec![gather(slf.py(), world_size, send, out)?])
    }

    /// Collects a few numbers from every member: a list for each rank.
    #[pyo3(signature = (values, **options))]
    fn all_gather_scalars(
        slf: &Bound<'_, Self>,
        values: Vec<Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<Vec<f64>>> {
        let values = values.iter().map(scalar).collect::<PyResult<Vec<f64>>>()?;
        let world_size = slf.get().0.world_size();
        let plan = plan(Collective::AllGather { world_size }, options)?;
        let count = values.len();
        let part = Part {
            send: Some(own(values)),
            receive: own(vec![0.0; count * world_size as usize]),
            count,
        };
        let (flight, _) = run_flight(slf, plan, vec![part])?;
        if count == 0 {
            return Ok(vec![Vec::new(); world_size as usize]);
        }
        let gathered = flight
            .take_own()
            .ok_or_else(|| internal("the gathered numbers are gone"))?;
        Ok(gathered.chunks(count).map(<[f64]>::to_vec).collect())
    }

    /// Reduces `send`, `world_size` equal shares, and gives each member the share of its rank.
    #[pyo3(signature = (send, out, op = "sum", **options))]
    fn reduce_scatter(
        slf: &Bound<'_, Self>,
        send: Object<'_, '_>,
        out: Object<'_, '_>,
        op: &str,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Outcome> {
        let world_size = slf.get().0.world_size();
        let plan = plan(scattered(slf.py(), op, world_size)?, options)?;
        run(slf, plan, vec![scatter(slf.py(), world_size, send, out)?])
    }

    /// Starts a reduce-scatter.
    #[pyo3(signature = (send, out, op = "sum", **options))]
    fn reduce_scatter_async(
        slf: &Bound<'_, Self>,
        send: Object<'_, '_>,
        out: Object<'_, '_>,
        op: &str,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Handle> {
        let world_size = slf.get().0.world_size();
        let plan = plan(scattered(slf.py(), op, world_size)?, options)?;
        start(slf, plan, vec![scatter(slf.py(), world_size, send, out)?])
    }

    /// Sends the buffer of rank `root` to all members.
    #[pyo3(signature = (buffer, root = 0, **options))]
    fn broadcast(
        slf: &Bound<'_, Self>,
        buffer: Object<'_, '_>,
        root: u32,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Outcome> {
        let plan = plan(Collective::Broadcast { root: Rank(root) }, options)?;
        run(slf, plan, vec![reduce_part(buffer, None)?])
    }

    /// Starts a broadcast.
    #[pyo3(signature = (buffer, root = 0, **options))]
    fn broadcast_async(
        slf: &Bound<'_, Self>,
        buffer: Object<'_, '_>,
        root: u32,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Handle> {
        let plan = plan(Collective::Broadcast { root: Rank(root) }, options)?;
        start(slf, plan, vec![reduce_part(buffer, None)?])
    }

    /// Blocks until all members have called it.
    #[pyo3(signature = (**options))]
    fn barrier(slf: &Bound<'_, Self>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Outcome> {
        let plan = plan(Collective::Barrier, options)?;
        run(slf, plan, Vec::new())
    }

    /// Starts a barrier.
    #[pyo3(signature = (**options))]
    fn barrier_async(
        slf: &Bound<'_, Self>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Handle> {
        let plan = plan(Collective::Barrier, options)?;
        start(slf, plan, Vec::new())
    }
}

fn run(slf: &Bound<'_, Communicator>, plan: Plan, parts: Vec<Part>) -> PyResult<Outcome> {
    let (_, end) = run_flight(slf, plan, parts)?;
    Ok(Outcome(end))
}

fn run_flight(
    slf: &Bound<'_, Communicator>,
    plan: Plan,
    parts: Vec<Part>,
) -> PyResult<(Arc<Flight>, ccl_core::Outcome)> {
    let Communicator(_, _, abandoned) = slf.get();
    let tag = plan.options.tag;
    let flight = start_flight(slf, plan, parts)?;
    let end = flight.wait_or_cancel(slf.py());
    if !flight.is_finished() {
        abandoned.add(tag, &flight);
    }
    Ok((flight, end?))
}

fn start(slf: &Bound<'_, Communicator>, plan: Plan, parts: Vec<Part>) -> PyResult<Handle> {
    let tag = plan.options.tag;
    let flight = start_flight(slf, plan, parts)?;
    Ok(Handle::new(flight, tag, slf.clone().unbind()))
}

fn start_flight(
    slf: &Bound<'_, Communicator>,
    plan: Plan,
    parts: Vec<Part>,
) -> PyResult<Arc<Flight>> {
    let (py, Communicator(native, _, abandoned)) = (slf.py(), slf.get());
    abandoned.wait(py, plan.options.tag)?;
    Flight::start(py, native, plan, parts)
}

fn plan(collective: Collective, options: Option<&Bound<'_, PyDict>>) -> PyResult<Plan> {
    Ok(Plan {
        collective,
        options: settings::options(options)?,
    })
}

fn all_reduced(py: Python<'_>, op: &str) -> PyResult<Collective> {
    let reduce_op = reduce_op(py, op)?;
    Ok(Collective::AllReduce { reduce_op })
}

fn scattered(py: Python<'_>, op: &str, world_size: u32) -> PyResult<Collective> {
    Ok(Collective::ReduceScatter {
        reduce_op: reduce_op(py, op)?,
        world_size,
    })
}

fn reduce_op(py: Python<'_>, op: &str) -> PyResult<ReduceOp> {
    match op {
        "sum" => Ok(ReduceOp::Sum),
        other => settings::reduce_op(py, other),
    }
}

/// A buffer whose result has the same length.
fn reduce_part(buffer: Object<'_, '_>, out: Option<Object<'_, '_>>) -> PyResult<Part> {
    let Some(out) = out else {
        let receive = Memory::of(buffer, Use::Write)?;
        let count = receive.count;
        return Ok(Part {
            send: None,
            receive,
            count,
        });
    };
    let (send, receive) = (Memory::of(buffer, Use::Read)?, Memory::of(out, Use::Fill)?);
    let count = send.count;
    check_out(buffer.py(), &receive, send.dtype, count)?;
    Ok(Part {
        send: Some(send),
        receive,
        count,
    })
}

fn reduce_parts(buffers: &[Bound<'_, PyAny>]) -> PyResult<Vec<Part>> {
    let parts = buffers.iter().map(|buffer| reduce_part(buffer, None));
    parts.collect()
}

/// `world_size` is that of the plan, to which the length of `out` must fit.
fn gather(
    py: Python<'_>,
    world_size: u32,
    send: Object<'_, '_>,
    out: Object<'_, '_>,
) -> PyResult<Part> {
    let (send, receive) = (Memory::of(send, Use::Read)?, Memory::of(out, Use::Fill)?);
    let count = send.count;
    check_out(py, &receive, send.dtype, count * world_size as usize)?;
    Ok(Part {
        send: Some(send),
        receive,
        count,
    })
}

/// As `gather`.
fn scatter(
    py: Python<'_>,
    world_size: u32,
    send: Object<'_, '_>,
    out: Object<'_, '_>,
) -> PyResult<Part> {
    let (send, receive) = (Memory::of(send, Use::Read)?, Memory::of(out, Use::Fill)?);
    let count = receive.count;
    if send.count != count * world_size as usize {
        let what = format!(
            "the input has {} elements; {world_size} ranks with {count} each in `out` need {}",
            send.count,
            count * world_size as usize
        );
        return Err(invalid(py, what));
    }
    check_out(py, &receive, send.dtype, count)?;
    Ok(Part {
        send: Some(send),
        receive,
        count,
    })
}

fn check_out(py: Python<'_>, out: &Memory, dtype: Dtype, count: usize) -> PyResult<()> {
    if out.dtype != dtype {
        let (found, needed) = (out.dtype.name(), dtype.name());
        return Err(invalid(
            py,
            format!("out has {found} elements, the input {needed}"),
        ));
    }
    if out.count != count {
        let found = out.count;
        return Err(invalid(
            py,
            format!("out has {found} elements, but {count} are needed"),
        ));
    }
    Ok(())
}

/// A number as it is sent. Integers must arrive exactly: they may be seeds or sizes.
fn scalar(value: Object<'_, '_>) -> PyResult<f64> {
    let py = value.py();
    if value.is_exact_instance_of::<PyFloat>() {
        return value.extract();
    }
    let Ok(integer) = value.call_method0(intern!(py, "__index__")) else {
        return value.extract(); // No integer.
    };
    match integer.extract::<f64>() {
        Ok(number) if integer.eq(number)? => Ok(number),
        _ => Err(invalid(
            py,
            format!(
                "{integer} cannot be represented exactly as a 64-bit float: gather such integers \
                 with all_gather, in arrays of int64"
            ),
        )),
    }
}

/// Memory owned by the library.
fn own(elements: Vec<f64>) -> Memory {
    let mut elements = elements.into_boxed_slice();
    Memory {
        address: elements.as_mut_ptr() as usize,
        count: elements.len(),
        dtype: Dtype::F64,
        keep: Keep::Own { elements },
    }
}
