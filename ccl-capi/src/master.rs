//! A master in this process.

use std::ffi::c_char;
use std::sync::Arc;

use ccl_core::driver::master::EventSink;
use ccl_core::event::{Event, News};
use ccl_core::lock::Mutex;
use ccl_core::{Error, MasterConfig, MasterServer};

use crate::call::call;
use crate::config::{cclMasterConfig_t, master_config};
use crate::handles::{self, Kind};
use crate::memory;
use crate::result::{Outcome, cclResult_t};
use crate::types::bounded;

/// Opaque; see cclMaster_t.
pub struct cclMaster {
    _private: [u8; 0],
}

/// A master. Destroy it with cclDestroyMaster.
pub type cclMaster_t = *mut cclMaster;

/// Buffer size in bytes that fits every address with its zero byte.
pub const CCL_ADDRESS_BYTES_MAX: usize = 64;

/// Creates a master, which does not run yet. `config` may be NULL and is not kept. Does not block.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclCreateMaster")]
pub unsafe extern "C" fn create_master(
    config: *const cclMasterConfig_t,
    master: *mut cclMaster_t,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let (place, config) = unsafe { (memory::out(master, "master")?, master_config(config)?) };
        let state = Mutex::new(State::Created);
        place.set(handles::insert(Arc::new(Master { config, state })));
        Ok(())
    })
}

/// Reads the journal, binds the port and serves from a thread of the library. Returns as soon as
/// peers can connect; blocks only for the disk.
///
/// Errors: cclErrorSystem if the port or the journal cannot be opened; cclErrorInvalidArgument for
/// a journal of another run, damaged, or in use; cclErrorInvalidUsage if it ran before;
/// cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclRunMaster")]
pub unsafe extern "C" fn run_master(master: cclMaster_t) -> cclResult_t {
    call(|| {
        let master = handles::get::<Master, _>(master)?;
        master.begin()?;
        let started = MasterServer::start(master.config.clone(), Some(sink()));
        master.finish(started)
    })
}

/// Writes the `ip:port` that the master listens on, with a zero byte at the end;
/// CCL_ADDRESS_BYTES_MAX bytes are always enough. Does not block.
///
/// Errors: cclErrorInvalidArgument if it does not fit; cclErrorInvalidUsage if the master does not
/// run; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclGetMasterAddress")]
pub unsafe extern "C" fn get_master_address(
    master: cclMaster_t,
    address: *mut c_char,
    address_bytes: usize,
) -> cclResult_t {
    call(|| {
        let text = running(master)?.address().to_string();
        // SAFETY: NULL, or what the header asks for.
        unsafe { memory::set_text(address, address_bytes, "address", &text) }
    })
}

/// Tells the master to stop serving; cclAwaitMaster returns once it has. Peers go on, and find a
/// restarted master. Further calls do no harm. Does not block; may be called from any thread, but
/// not from a signal handler.
///
/// Errors: cclErrorInvalidUsage if the master does not run; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclInterruptMaster")]
pub unsafe extern "C" fn interrupt_master(master: cclMaster_t) -> cclResult_t {
    call(|| {
        running(master)?.stop();
        Ok(())
    })
}

/// Blocks until the master has ended: by cclInterruptMaster, by cclDestroyMaster, or by itself. Any
/// number of threads may wait, also after the end.
///
/// Errors: cclErrorSystem if the journal could not be written: the master stops, because it must
/// not send what is not on disk. Restart it once the disk has space. cclErrorInvalidUsage if the
/// master does not run; cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclAwaitMaster")]
pub unsafe extern "C" fn await_master(master: cclMaster_t) -> cclResult_t {
    call(|| Ok(running(master)?.wait()?))
}

/// Blocks until the master has ended, at most `timeout_ms` milliseconds; 0 does not wait.
///
/// Errors: cclErrorTimeout if it has not ended by then; else as cclAwaitMaster.
#[unsafe(export_name = "cclAwaitMasterFor")]
pub unsafe extern "C" fn await_master_for(master: cclMaster_t, timeout_ms: u64) -> cclResult_t {
    call(|| {
        let end = running(master)?.wait_for(bounded(timeout_ms));
        Ok(end.unwrap_or(Err(Error::Timeout))?)
    })
}

/// Stops the master, blocks until it has stopped, and destroys the handle. Peers go on.
///
/// Errors: cclErrorInvalidHandle, cclErrorForked.
#[unsafe(export_name = "cclDestroyMaster")]
pub unsafe extern "C" fn destroy_master(master: cclMaster_t) -> cclResult_t {
    call(|| {
        let master = handles::remove::<Master, _>(master)?;
        let state = std::mem::replace(&mut *master.state.lock(), State::Destroyed);
        if let State::Running(server) = state {
            server.stop();
            // Threads in cclAwaitMaster get the result.
            let _end = server.wait();
        }
        Ok(())
    })
}

/// What a `cclMaster_t` stands for.
#[derive(Debug)]
pub(crate) struct Master {
    config: MasterConfig,
    state: Mutex<State>,
}

impl Kind for Master {
    const NAME: &'static str = "master";
}

#[derive(Debug)]
enum State {
    Created,
    /// A thread is in cclRunMaster, and waits for the disk.
    Starting,
    Running(Arc<MasterServer>),
    Destroyed,
}

impl Master {
    /// Marks it as starting; fails if another thread has. The lock is not held during the start.
    fn begin(&self) -> Outcome<()> {
        let mut state = self.state.lock();
        match *state {
            State::Created => {
                *state = State::Starting;
                Ok(())
            }
            State::Starting | State::Running(_) => {
                Err(Error::usage("the master is already running").into())
            }
            State::Destroyed => Err(destroyed()),
        }
    }

    /// Keeps what came of it; after a failure it may be run again.
    fn finish(&self, started: ccl_core::Result<MasterServer>) -> Outcome<()> {
        let mut state = self.state.lock();
        if matches!(*state, State::Destroyed) {
            drop(state);
            // Stops the server, if there is one, which takes the master's thread.
            drop(started);
            return Err(destroyed());
        }
        match started {
            Ok(server) => {
                *state = State::Running(Arc::new(server));
                Ok(())
            }
            Err(error) => {
                *state = State::Created;
                Err(error.into())
            }
        }
    }
}

fn running(master: cclMaster_t) -> Outcome<Arc<MasterServer>> {
    let master = handles::get::<Master, _>(master)?;
    match &*master.state.lock() {
        State::Running(server) => Ok(Arc::clone(server)),
        State::Created | State::Starting => {
            Err(Error::usage("the master is not running: call cclRunMaster").into())
        }
        State::Destroyed => Err(destroyed()),
    }
}

fn destroyed() -> crate::result::Failure {
    Error::usage("the master is being destroyed").into()
}

/// Logs a master's events; routine ones at a lower level.
fn sink() -> EventSink {
    let news = Mutex::new(News::default());
    Arc::new(move |event: &Event| match news.lock().is(event) {
        true => tracing::info!("master: {event}"),
        false => tracing::debug!("master: {event}"),
    })
}
