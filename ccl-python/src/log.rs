//! Passes the library's log lines to Python's `logging` (`ccl._log`).
//!
//! The library's threads put them in a queue and never wait for Python; a full queue counts what it
//! drops. A Python thread reads the queue.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ccl_core::lock::{Condvar, Mutex};
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use crate::per_process::PerProcess;

/// Level as Python numbers it, text, seconds since 1970, thread, file and line.
pub type Line = (u8, String, f64, Option<String>, &'static str, u32);

/// Accepts lines from `level` on, in Python's numbers; from 41 on none.
#[pyfunction]
pub fn log_level(level: u8) {
    // Nothing else in this shared object receives log lines.
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(Lines).is_ok());
    let queue = Queue::of_process();
    queue.level.store(level, Ordering::Relaxed);
    queue.state.lock().is_closed = false;
    tracing::callsite::rebuild_interest_cache();
}

/// The next lines, and how many were dropped before them; blocks until there are some. `None` once
/// the log is closed and empty.
#[pyfunction]
pub fn log_lines(py: Python<'_>) -> Option<(Vec<Line>, u64)> {
    let queue = Queue::of_process();
    py.detach(|| {
        let is_quiet = |state: &mut State| state.lines.is_empty() && !state.is_closed;
        let mut state = queue.filled.wait_while(queue.state.lock(), is_quiet);
        let lines: Vec<Line> = state.lines.drain(..).collect();
        let dropped = std::mem::take(&mut state.dropped);
        (!lines.is_empty()).then_some((lines, dropped))
    })
}

/// Ends the log: readers get the remaining lines, and no more.
#[pyfunction]
pub fn log_close() {
    let queue = Queue::of_process();
    queue.level.store(OFF, Ordering::Relaxed);
    queue.state.lock().is_closed = true;
    queue.filled.notify_all();
}

/// Queued lines.
#[derive(Debug)]
struct Queue {
    level: AtomicU8,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<Line>,
    dropped: u64,
    is_closed: bool,
}

impl Queue {
    const fn new() -> Self {
        Self {
            level: AtomicU8::new(OFF),
            state: Mutex::new(State {
                lines: VecDeque::new(),
                dropped: 0,
                is_closed: false,
            }),
            filled: Condvar::new(),
        }
    }

    fn of_process() -> &'static Self {
        static QUEUE: PerProcess<Queue> = PerProcess::new(Queue::new());
        QUEUE.get(Self::new)
    }

    fn takes(&self, level: Level) -> bool {
        number(level) >= self.level.load(Ordering::Relaxed)
    }

    fn push(&self, line: Line) {
        let mut state = self.state.lock();
        if state.lines.len() < LINES_MAX {
            state.lines.push_back(line);
            self.filled.notify_one();
        } else {
            state.dropped += 1;
        }
    }
}

/// Turns events into lines. Spans are not used by the library.
struct Lines;

impl Subscriber for Lines {
    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::sometimes() // The level may change at any time.
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Queue::of_process().takes(*metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let queue = Queue::of_process();
        let mut levels = LEVELS.into_iter();
        let finest = levels.find(|level| queue.takes(*level));
        Some(finest.map_or(LevelFilter::OFF, LevelFilter::from_level))
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Queue::of_process().push((
            number(*metadata.level()),
            text.into_line(),
            now.unwrap_or_default().as_secs_f64(),
            std::thread::current().name().map(str::to_owned),
            metadata.file().unwrap_or_default(),
            metadata.line().unwrap_or_default(),
        ));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// One event: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    /// It may contain text from others, which must not look like a separate line.
    fn into_line(self) -> String {
        let line = self.message + &self.fields;
        line.trim_start().replace(['\n', '\r'], " ")
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("a string takes everything");
    }
}

/// Levels by Python's numbers.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        _ => 5,
    }
}

/// Finest first.
const LEVELS: [Level; 5] = [
    Level::TRACE,
    Level::DEBUG,
    Level::INFO,
    Level::WARN,
    Level::ERROR,
];
/// Above all levels.
const OFF: u8 = 255;
/// Lines that wait for Python: some 100 bytes each, and a minute of a busy run.
const LINES_MAX: usize = 4096;
