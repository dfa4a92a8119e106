//! One training process: it talks with the parent, and comes back as a newcomer when it was
//! evicted. What it trains is in `trainer`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ccl_core::Error;

use super::notes::{Note, Order, Setup};
use super::trainer::{Stop, Trainer};
use crate::child::{orders, receive_line, send_line};
use crate::failure::{Context, Failure, Result};

/// What the parent, or a signal, has asked for.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    leave: Arc<AtomicBool>,
    finish: Arc<AtomicBool>,
}

impl Wishes {
    /// Whether to leave before the next step.
    pub fn is_leave(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }

    /// Whether the training may end.
    pub fn is_finish(&self) -> bool {
        self.finish.load(Ordering::Relaxed)
    }

    /// Takes orders in a thread of its own, which ends this process when the parent is gone.
    fn listen(&self) -> Result<()> {
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&self.leave))
            .context("signal handler")?;
        let wishes = self.clone();
        let orders = orders::<Order>();
        std::thread::spawn(move || {
            for order in orders {
                match order {
                    Ok(Order::Finish) => wishes.finish.store(true, Ordering::Relaxed),
                    Ok(Order::Leave) => wishes.leave.store(true, Ordering::Relaxed),
                    Err(failure) => {
                        let error = failure.to_string();
                        // The parent that wrote this nonsense may not listen either.
                        let _ = tell(&Note::Failed { error });
                    }
                }
            }
        });
        Ok(())
    }
}

/// Trains as the parent says. Ends with status 0 if it finished or left.
pub fn run() -> Result<ExitCode> {
    let mut setup: Setup =
        receive_line(&mut std::io::stdin().lock())?.ok_or_else(|| Failure::new("no setup"))?;
    let wishes = Wishes::default();
    wishes.listen()?;
    let note = loop {
        match train(&setup, &wishes) {
            Ok(note) => break note,
            Err(Stop::Library(error)) if is_session_over(&error) => {
                let reason = match error {
                    Error::Evicted(eviction) => eviction.to_string(),
                    error => error.to_string(),
                };
                tell(&Note::Evicted { reason })?;
                setup.is_newcomer = true;
                setup.peers = 1;
                setup.fault = None;
            }
            Err(Stop::Library(error)) => {
                let error = error.to_string();
                break Note::Failed { error };
            }
            Err(Stop::Other(failure)) => {
                let error = failure.to_string();
                break Note::Failed { error };
            }
        }
    };
    tell(&note)?;
    let is_failed = matches!(note, Note::Failed { .. });
    Ok(if is_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn train(setup: &Setup, wishes: &Wishes) -> Result<Note, Stop> {
    let mut trainer = Trainer::new(setup)?;
    trainer.synchronise()?;
    loop {
        if wishes.is_leave() {
            trainer.leave()?;
            return Ok(Note::Left);
        }
        let is_last = trainer.step(wishes)?;
        if is_last {
            return trainer.finish();
        }
        if trainer.is_at_safe_point() {
            trainer.admit()?;
            trainer.synchronise()?;
        }
    }
}

/// Whether to begin anew as a newcomer: the others go on without this session, whether a call was
/// told so, or may have succeeded, or came too late to be told.
fn is_session_over(error: &Error) -> bool {
    matches!(
        error,
        Error::Evicted(_) | Error::Unknown(_) | Error::Ended(_)
    )
}

/// One line to the parent.
pub fn tell(note: &Note) -> Result<()> {
    send_line(&mut std::io::stdout().lock(), note)
}

/// Name of the demonstration's run.
pub const RUN: &str = "demo";
