//! Passes the library's log lines to a function of the application.

use std::ffi::{CString, c_char, c_void};
use std::fmt::{Debug, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use ccl_core::Error;
use ccl_core::lock::RwLock;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use crate::call::call;
use crate::callback;
use crate::result::{Outcome, cclResult_t};

/// Severity of a log line; each level includes those with smaller numbers.
pub type cclLogLevel_t = u32;

/// A permanent failure.
pub const cclLogError: cclLogLevel_t = 1;
/// Something an operator should know about.
pub const cclLogWarn: cclLogLevel_t = 2;
/// Changes of state: views, peers, repairs.
pub const cclLogInfo: cclLogLevel_t = 3;
/// Connections and their options.
pub const cclLogDebug: cclLogLevel_t = 4;
/// Everything.
pub const cclLogTrace: cclLogLevel_t = 5;

/// Receives one log line: UTF-8 text without a line end, valid during the call only. Called from
/// any thread, from several at once, and from within calls of the library. It must return quickly,
/// must not unwind, and must not call the library: such a call returns cclErrorInvalidUsage.
pub type cclLogCallback_t = Option<
    unsafe extern "C" fn(level: cclLogLevel_t, message: *const c_char, user_data: *mut c_void),
>;

/// Sends the library's log lines, for the whole process, to `callback`, up to `level`. Replaces an
/// earlier callback; NULL turns the log off, which is the default. When this returns, no earlier
/// callback is running. `user_data` is passed through; it stays the caller's.
///
/// Blocks while an earlier callback runs.
///
/// Errors: cclErrorInvalidArgument for an unknown level; cclErrorInvalidUsage if another part of
/// the program already takes the log lines.
#[unsafe(export_name = "cclSetLogCallback")]
pub unsafe extern "C" fn set_log_callback(
    callback: cclLogCallback_t,
    user_data: *mut c_void,
    level: cclLogLevel_t,
) -> cclResult_t {
    call(|| {
        let level = level_of(level)?;
        let Some(callback) = callback else {
            LEVEL.store(0, Ordering::Relaxed);
            *own_log().sink.write() = None;
            return Ok(());
        };
        install()?;
        *own_log().sink.write() = Some(Sink {
            callback,
            user_data,
            level,
        });
        LEVEL.store(number_of(level), Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    })
}

/// The function that takes the lines.
#[derive(Clone, Copy, Debug)]
struct Sink {
    callback: unsafe extern "C" fn(cclLogLevel_t, *const c_char, *mut c_void),
    user_data: *mut c_void,
    level: Level,
}

// SAFETY: the pointer is only passed to the application's callback, which allows any thread.
unsafe impl Send for Sink {}
// SAFETY: as above; also from several threads at once.
unsafe impl Sync for Sink {}

/// Where the lines of one process go. A forked child creates its own, because the copy of its
/// parent's may be locked by threads that the child does not have.
#[derive(Debug)]
struct Log {
    process: u32,
    sink: RwLock<Option<Sink>>,
}

static LOG: AtomicPtr<Log> = AtomicPtr::new(std::ptr::null_mut());
/// The level in force, or 0. Checked first, to avoid the lock for unwanted lines.
static LEVEL: AtomicU32 = AtomicU32::new(0);
static INSTALLED: OnceLock<bool> = OnceLock::new();

/// This process's log, created if necessary.
fn own_log() -> &'static Log {
    loop {
        let found = LOG.load(Ordering::Acquire);
        // SAFETY: NULL, or a log that was leaked below.
        let log = unsafe { found.as_ref() };
        if let Some(log) = log.filter(|log| log.process == std::process::id()) {
            return log;
        }
        let fresh = Box::into_raw(Box::new(Log {
            process: std::process::id(),
            sink: RwLock::new(log.and_then(inherit)),
        }));
        let swap = LOG.compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire);
        if swap.is_err() {
            // SAFETY: created above and not published.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

/// The parent's callback, unless it was being changed at the fork.
fn inherit(parent: &Log) -> Option<Sink> {
    let sink = parent.sink.try_read()?;
    let inherited = *sink;
    // Threads that waited for the lock are not in this process, and it is not used again.
    std::mem::forget(sink);
    inherited
}

fn install() -> Outcome<()> {
    let install = || tracing::subscriber::set_global_default(Lines).is_ok();
    if *INSTALLED.get_or_init(install) {
        return Ok(());
    }
    Err(Error::usage("another part of the program already takes the log lines").into())
}

fn level_of(number: cclLogLevel_t) -> Outcome<Level> {
    Ok(match number {
        cclLogError => Level::ERROR,
        cclLogWarn => Level::WARN,
        cclLogInfo => Level::INFO,
        cclLogDebug => Level::DEBUG,
        cclLogTrace => Level::TRACE,
        _ => {
            return Err(
                Error::invalid(format!("unknown log level {number}; expected 1 to 5")).into(),
            );
        }
    })
}

fn number_of(level: Level) -> cclLogLevel_t {
    match level {
        Level::ERROR => cclLogError,
        Level::WARN => cclLogWarn,
        Level::INFO => cclLogInfo,
        Level::DEBUG => cclLogDebug,
        _ => cclLogTrace,
    }
}

/// Turns events into lines. Spans are not used by the library.
struct Lines;

impl Subscriber for Lines {
    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
        // The level may change at any time.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number_of(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.into_text();
        let level = *event.metadata().level();
        let sink = own_log().sink.read();
        let Some(sink) = sink.as_ref().filter(|sink| level <= sink.level) else {
            return;
        };
        // SAFETY: the application vouched for the function, and it may be called anywhere.
        callback::run(|| unsafe {
            (sink.callback)(number_of(level), text.as_ptr(), sink.user_data);
        });
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// One event: its message, then its fields.
#[derive(Default)]
struct Line {
    text: String,
    fields: String,
}

impl Line {
    /// Replaces line breaks: text received from others must not look like a separate line.
    fn into_text(self) -> CString {
        let text = (self.text + &self.fields).replace(['\0', '\n', '\r'], " ");
        CString::new(text).expect("zeros were replaced")
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_one_line_whatever_was_sent() {
        let line = Line {
            text: "left: bye\nERROR all is lost\0".into(),
            fields: " run=a\rb".into(),
        };
        assert_eq!(
            line.into_text().as_c_str(),
            c"left: bye ERROR all is lost  run=a b"
        );
    }
}
